//! The last day as each node counted it, so that charts outlive a process and show all nodes.
//!
//! Invariant: a row is what one node counted in one half hour, all of it and by all of its lives, so that
//! writing it again changes nothing. A minute of counting may be lost with its process. Left out: what is
//! counted, and the other numbers of `metrics`, which are one process's own.

use super::{
    Result, Store,
    driver::{Tx, Value, params},
};
use crate::{clock::Timestamp, metrics::Stretch};

impl Store {
    /// What this node counted in earlier lives goes on to be counted.
    pub async fn take_up_day(&self, node: String) -> Result<()> {
        let now = self.clock.now();
        let found = self.driver.read(move |tx| read(tx, "node = $1", &node, now)).await?;
        self.metrics().take_up_day(found);
        Ok(())
    }

    /// Writes down what this node has counted, if there is anything new.
    pub async fn keep_day(&self, node: String) -> Result<()> {
        let now = self.clock.now();
        let news = self.metrics().unwritten_day(now);
        if !news.is_empty() {
            let written = news.clone();
            self.driver.step(move |tx| write(tx, &node, &written, now)).await?;
            self.metrics().wrote_day(&news);
        }
        Ok(())
    }

    /// Looks what other nodes have counted.
    pub async fn look_at_day_of_others(&self, node: String) -> Result<()> {
        let now = self.clock.now();
        let others = self.driver.read(move |tx| read(tx, "node <> $1", &node, now)).await?;
        self.metrics().set_day_of_others(others);
        Ok(())
    }
}

fn read(tx: &mut Tx<'_>, whose: &str, node: &str, now: Timestamp) -> Result<Vec<Stretch>> {
    // What is ahead is from before the clock was set back; counting would go on there.
    let sql = format!(
        "select began, counts from days where {whose} and began > $2 and began <= $3 order by began"
    );
    let rows = tx.query(&sql, &params![node, Stretch::gone_by(now), now])?;
    // Another version may have counted other things: a chart begins anew then.
    let read = rows.into_iter().map(|mut row| Ok(Stretch::parse(row.time(0)?, &row.text(1)?)));
    Ok(read.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn write(tx: &mut Tx<'_>, node: &str, news: &[Stretch], now: Timestamp) -> Result<()> {
    for stretch in news {
        let row: [Value; 3] = params![node, stretch.began, stretch.to_text()];
        tx.execute(
            "insert into days (node, began, counts) values ($1, $2, $3) \
             on conflict (node, began) do update set counts = excluded.counts",
            &row,
        )?;
    }
    // Also those of nodes that are no more.
    tx.execute("delete from days where began <= $1", &params![Stretch::gone_by(now)])?;
    Ok(())
}
