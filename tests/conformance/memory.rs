//! Memory does not grow with a table.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use crate::place::Place;
use crate::subject::Subject;

/// Of the smaller and the larger table: some 20 and 60 MB of text, more than the bound of all buffers is.
const ROWS: [u32; 2] = [100_000, 300_000];
/// The difference of the peaks, in MiB: buffers fill up to their bound, and the data is 40 MB more.
const ALLOWED: f64 = 20.0;

pub(crate) fn bounded(subject: &dyn Subject) {
    let peaks = ROWS.map(|rows| {
        let place = Place::new(subject, &format!("memory_{rows}"));
        subject.bulk(&place.database, "bulk", rows);
        let archive = place.archive();
        let args = ["--json", "--memory", "32MiB", "--window", "1000d", "--concurrency", "1"];
        let mut command = archive.command(&args);
        // The C library keeps ever larger freed blocks for itself unless this is set, by 10 to 20 MiB from one of these
        // sizes to the other. What is compared here is what the program holds.
        command.env("MALLOC_TRIM_THRESHOLD_", "131072");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut peak: f64 = 0.0;
        while child.try_wait().unwrap().is_none() {
            let status =
                fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib =
                line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
            peak = peak.max(kib.unwrap_or(0.0) / 1024.0);
            thread::sleep(Duration::from_millis(2));
        }
        let output = child.wait_with_output().unwrap();
        let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(summary["rows"], rows, "{summary}");
        peak
    });
    assert!(peaks[0] > 5.0 && peaks[1] - peaks[0] < ALLOWED, "{peaks:?} MiB for {ROWS:?} rows");
}
