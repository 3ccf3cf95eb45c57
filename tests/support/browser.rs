//! A real browser without a window, which looks at a page: what it makes of it, and a picture.

use std::fs;
use std::io::{Read, Write as _};
use std::path::Path;
use std::process::Command;

use flate2::read::ZlibDecoder;
use serde_json::Value;
use tempfile::TempDir;

use super::repository;
use super::run;

/// How a page is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    /// Of the window, in pixels.
    pub(crate) width: u32,
    /// Whether the user prefers dark colours.
    pub(crate) dark: bool,
}

impl View {
    fn browser(self, profile: &Path) -> Command {
        let mut command = Command::new("chromium");
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--hide-scrollbars",
        ]);
        command.arg(format!("--user-data-dir={}", profile.display()));
        // Light is 1, dark 0.
        command.arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!self.dark)));
        command.arg(format!("--window-size={},1200", self.width));
        command
    }

    /// The page as the browser has it after it was loaded, and after `script`, which runs in a copy of the page and
    /// whose value, which may be a promise, is returned as JSON.
    pub(crate) fn ask(self, page: &str, before: &str, script: &str) -> Value {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("page.html");
        let policy = page.lines().find(|line| line.contains("Content-Security-Policy")).unwrap();
        assert!(policy.contains("default-src 'none'"), "{policy}");
        let asked = format!(
            "<script>{before}</script><script>Promise.resolve().then(() => ({script})).catch(e => ({{failed: String(e)}})).then(value => \
             parent.postMessage([matchMedia('(prefers-color-scheme: dark)').matches, value], '*'));</script></body>"
        );
        // The page itself allows no script at all.
        fs::write(&file, page.replacen(policy, "", 1).replacen("</body>", &asked, 1)).unwrap();
        // A window has a least width; a frame has none.
        let frame = folder.path().join("frame.html");
        let width = self.width;
        let around = format!(
            "<!DOCTYPE html><html><meta name=color-scheme content='light dark'><script>addEventListener('message', told => \
             document.documentElement.setAttribute('data-told', encodeURIComponent(JSON.stringify(told.data))));</script>\
             <body style='margin:0'><iframe src=page.html style='border:0;width:{width}px;height:1200px'></iframe></body></html>"
        );
        fs::write(&frame, around).unwrap();
        let mut command = self.browser(&folder.path().join("profile"));
        command
            .args(["--virtual-time-budget=30000", "--dump-dom"])
            .arg(format!("file://{}", frame.display()));
        let run = run(command);
        let told = run.stdout.split_once("data-told=\"").and_then(|(_, rest)| rest.split_once('"'));
        let told = told.unwrap_or_else(|| panic!("the browser told nothing: {}", run.stderr)).0;
        let told = percent_encoding::percent_decode_str(told).decode_utf8().unwrap();
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told[0], self.dark, "the colours that the user prefers");
        told[1].clone()
    }

    /// A picture of the page: how many different bytes its lines have.
    pub(crate) fn colours(self, page: &Path) -> usize {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("page.png");
        let mut command = self.browser(&folder.path().join("profile"));
        command.arg(format!("--screenshot={}", file.display()));
        command.arg(format!("file://{}", page.display()));
        let run = run(command);
        let png = fs::read(&file).unwrap_or_else(|error| panic!("{error}: {}", run.stderr));
        let mut data = Vec::new();
        let mut at = 8;
        while let Some(head) = png.get(at..at + 8) {
            let length = u32::from_be_bytes(head[..4].try_into().unwrap()) as usize;
            if &head[4..] == b"IDAT" {
                data.extend_from_slice(&png[at + 8..at + 8 + length]);
            }
            at += length + 12;
        }
        let mut pixels = Vec::new();
        ZlibDecoder::new(data.as_slice()).read_to_end(&mut pixels).unwrap();
        pixels.sort_unstable();
        pixels.dedup();
        pixels.len()
    }

    /// What axe-core has against the page; `None` where it could not be installed.
    pub(crate) fn violations(self, page: &str) -> Option<Vec<String>> {
        let Ok(axe) = fs::read_to_string(repository("target/axe/axe.min.js")) else {
            let _ = writeln!(std::io::stderr(), "skipped: target/axe is missing, run .ci/setup");
            return None;
        };
        let script = "axe.run(document, {resultTypes: ['violations']}).then(r => [r.passes.length, r.violations.map(v => \
                      v.id + ': ' + v.help + ' ' + v.nodes.slice(0, 3).map(n => n.html + n.failureSummary).join(' | '))])";
        let told = self.ask(page, &axe.replace("</script", "<\\/script"), script);
        let passed = told[0].as_u64().unwrap_or_else(|| panic!("axe did not run: {told}"));
        assert!(passed > 10, "axe looked at nothing: {told}");
        Some(serde_json::from_value(told[1].clone()).unwrap())
    }
}
