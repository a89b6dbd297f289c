//! What was first seen of the tools of MCP servers.
//!
//! Invariant: the first who sees a tool decides what it is known as; from then on only somebody's
//! approval changes that. Left out: what a hash is of.

use std::collections::BTreeMap;

use super::{
    Result, Store,
    driver::{Lane, params},
};
use crate::id::AgentId;

/// Whose view of which server: the server's URL as it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedBy {
    pub agent_id: AgentId,
    pub agent_version: i64,
    pub server: String,
}

impl Store {
    /// Pins the tools that are new, and answers what each of a server's tools is pinned to.
    pub async fn pin_tools(
        &self,
        by: &PinnedBy,
        seen: Vec<(String, String)>,
    ) -> Result<BTreeMap<String, String>> {
        let pinned = self.pinned(by).await?;
        if seen.iter().all(|(tool, _)| pinned.contains_key(tool)) {
            return Ok(pinned);
        }
        let (of, at) = (by.clone(), self.clock.now());
        self.driver
            .transaction(Lane::Work, move |tx| {
                for (tool, hash) in &seen {
                    tx.execute(
                        "insert into mcp_pins \
                         (agent_id, agent_version, server, tool, hash, pinned_at) \
                         values ($1, $2, $3, $4, $5, $6) on conflict do nothing",
                        &params![&of.agent_id, of.agent_version, &of.server, tool, hash, at],
                    )?;
                }
                Ok(())
            })
            .await?;
        self.pinned(by).await
    }

    async fn pinned(&self, by: &PinnedBy) -> Result<BTreeMap<String, String>> {
        let of = by.clone();
        self.driver
            .read(move |tx| {
                let sql = "select tool, hash from mcp_pins \
                           where agent_id = $1 and agent_version = $2 and server = $3";
                let rows = tx.query(sql, &params![&of.agent_id, of.agent_version, &of.server])?;
                rows.into_iter().map(|mut row| Ok((row.text(0)?, row.text(1)?))).collect()
            })
            .await
    }

    /// Somebody agreed to a tool as it is now.
    pub async fn repin_tool(&self, by: &PinnedBy, tool: String, hash: String) -> Result<()> {
        let (of, at) = (by.clone(), self.clock.now());
        self.driver
            .transaction(Lane::Work, move |tx| {
                tx.execute(
                    "update mcp_pins set hash = $5, pinned_at = $6 where agent_id = $1 \
                     and agent_version = $2 and server = $3 and tool = $4 and hash <> $5",
                    &params![&of.agent_id, of.agent_version, &of.server, tool, hash, at],
                )?;
                Ok(())
            })
            .await
    }
}
