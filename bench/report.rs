//! The tables that go to standard output, as Markdown.

use std::{fmt::Write, io::Write as _, path::Path, time::Instant};

use crate::{Plan, load};

pub struct Report {
    notes: Vec<String>,
}

impl Report {
    /// Says what machine and what plan the figures belong to.
    pub fn open(plan: &Plan) -> anyhow::Result<Report> {
        let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("");
        let cores = std::thread::available_parallelism()?;
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
        println!(
            "{cores} processors ({}), Linux {}, {} rounds of {} s\n",
            model.trim_start_matches([':', '\t', ' ']),
            kernel.trim(),
            plan.rounds,
            plan.window.as_secs()
        );
        Ok(Report { notes: Vec::new() })
    }

    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    pub fn table(&mut self, title: &str, columns: &[&str], rows: &[Vec<String>]) {
        let mut out = format!("### {title}\n\n");
        let _ = writeln!(out, "| {} |", columns.join(" | "));
        let _ = writeln!(out, "|{}", " --- |".repeat(columns.len()));
        for row in rows {
            let _ = writeln!(out, "| {} |", row.join(" | "));
        }
        println!("{out}");
        let _ = std::io::stdout().flush();
    }

    pub fn close(self) {
        for note in self.notes {
            println!("- {note}");
        }
    }
}

/// The middle one.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

pub fn range(values: &[f64]) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(0.0, f64::max);
    format!("{low:.0}–{high:.0}")
}

/// Milliseconds that 4 KiB take to reach the disk that holds `directory`.
pub fn flush_ms(directory: &Path) -> anyhow::Result<f64> {
    use std::io::Seek;
    let path = directory.join("flush");
    let mut file = std::fs::File::create(&path)?;
    let mut micros = Vec::new();
    for _ in 0..300 {
        let started = Instant::now();
        file.rewind()?;
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        micros.push(load::micros(started.elapsed()));
    }
    std::fs::remove_file(path)?;
    Ok(load::percentile(&micros, 0.5))
}
