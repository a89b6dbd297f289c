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

    /// Writes down what this node has counted, and looks what others have.
    pub async fn keep_day(&self, node: String) -> Result<()> {
        let (now, metrics) = (self.clock.now(), self.metrics().clone());
        let news = metrics.unwritten_day(now);
        if !news.is_empty() {
            let (node, written) = (node.clone(), news.clone());
            self.driver.step(move |tx| write(tx, &node, &written, now)).await?;
            metrics.wrote_day(&news);
        }
        // On SQLite there are none.
        let others = self.driver.read(move |tx| read(tx, "node <> $1", &node, now)).await?;
        metrics.set_day_of_others(others);
        Ok(())
    }
}

fn read(tx: &mut Tx<'_>, whose: &str, node: &str, now: Timestamp) -> Result<Vec<Stretch>> {
    let sql = format!("select began, counts from days where {whose} and began > $2 order by began");
    let rows = tx.query(&sql, &params![node, Stretch::gone_by(now)])?;
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
