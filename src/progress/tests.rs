//! Tests of the lines about a run at work.

use super::*;

#[test]
fn the_bar_is_never_full_while_work_is_left() {
    let progress = Progress::silent();
    progress.add_rows(1000);
    for _ in 0..1000 {
        progress.chunk_done();
    }
    progress.left(1, None);
    assert!(progress.line().starts_with("[==========> ] 99%"), "{}", progress.line());
    progress.left(1, Some(1));
    assert!(progress.line().contains("99%"), "{}", progress.line());
    progress.left(3, Some(3000));
    assert!(progress.line().starts_with("[==>         ] 25%"), "{}", progress.line());
}

#[test]
fn the_line_holds_only_what_is_known() {
    let progress = Progress::silent();
    progress.doing("sealing the archive");
    assert_eq!(progress.line(), "sealing the archive");
    progress.left(2, None);
    let done = progress.reading("d.r.disk", "metrics");
    let reading = progress.reading("d.r.cpu", "metrics");
    drop(done);
    let line = progress.line();
    assert_eq!(line, "[            ] 0%, 0 rows, 0 B, d.r.cpu of metrics, 0 of about 2 windows");
    drop(reading);
    assert!(!progress.line().contains("cpu"), "{}", progress.line());
    progress.waiting(Instant::now() + Duration::from_secs(60), "the quota");
    assert!(progress.line().contains("waiting 60 s: the quota"), "{}", progress.line());
    progress.with(|doing| doing.stopping = true);
    assert_eq!(progress.line(), "stopping");
}

#[test]
fn the_rate_is_the_recent_one_and_a_stall_is_reported() {
    let progress = Progress::silent();
    progress.add_rows(10_000);
    progress.left(2, Some(10_000));
    let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
    progress.with(|doing| {
        doing.samples = VecDeque::from([(ago(10), 0, 0)]);
        doing.last_data = Some((ago(2), 10_000, 0));
    });
    let now = progress.moment();
    assert!((990..=1000).contains(&now.rows_per_second.unwrap()));
    assert!((10..=11).contains(&now.time_left.unwrap().as_secs()));
    progress.with(|doing| doing.last_data = Some((ago(12), 10_000, 0)));
    let line = progress.line();
    assert!(line.contains("no data for 12 s") && !line.contains("rows/s"), "{line}");
}

#[test]
fn a_line_holds_only_complete_parts_at_any_width() {
    let whole = |text: &str| Part::Whole(text.to_owned());
    let text = |text: &str| Part::Text(text.to_owned());
    let parts = [
        text("[===>        ] 25%"),
        whole("about 3 minutes left"),
        whole("12,345 rows"),
        whole("1,000 rows/s"),
        text("plant.autogen.temperature of metrics"),
        whole("3 of about 9 windows"),
    ];
    for columns in 1..160 {
        let line = fitting(&parts, columns);
        assert!(console::measure_text_width(&line) <= columns, "{columns}: {line}");
        assert!(!line.ends_with([',', ' ']), "{columns}: {line}");
    }
    assert_eq!(fitting(&parts, 36), "[===>        ] 25%, 12,345 rows");
    assert_eq!(fitting(&parts, 40), "[===>        ] 25%, about 3 minutes left");
    let line = "[===>        ] 25%, about 3 minutes left, 12,345 rows, 1,000 rows/s";
    assert_eq!(fitting(&parts, 74), line, "a name is cut only where enough of it stays");
    assert_eq!(fitting(&parts, 84), format!("{line}, plant.autogen.…"));
    assert!(fitting(&parts, 160).ends_with("of metrics, 3 of about 9 windows"));
}
