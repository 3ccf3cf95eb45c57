//! The layout of `src/`: imports lead downwards only, and no file is too long to be read. An import is a path that
//! begins with `crate`, `super`, `self` or the name of a module that the file declares, wherever it stands; unit tests do
//! not count.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The most lines that a source file may have.
const MOST_LINES: usize = 500;

type Module = Vec<String>;

#[test]
fn no_file_is_longer_than_can_be_read() {
    let long: Vec<String> = sources()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > MOST_LINES)
        .map(|(path, lines)| format!("{} has {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "files of more than {MOST_LINES} lines:\n{}", long.join("\n"));
}

#[test]
fn imports_lead_in_no_circle() {
    let circles = circles(&imports(&sources()));
    let told: Vec<String> = circles.iter().map(|circle| circle.join("\n  ")).collect();
    assert!(told.is_empty(), "files that import each other:\n  {}", told.join("\n\n  "));
}

#[test]
fn a_circle_is_found() {
    let sources = [
        ("src/lib.rs", "pub mod a; pub mod b;"),
        ("src/a.rs", "mod c;\nuse crate::b::{self, Two};\npub struct One;"),
        ("src/a/c.rs", "use super::super::b;\n#[cfg(test)]\nmod tests { use crate::a::One; }"),
        (
            "src/b.rs",
            "//! Not crate::b.\npub struct Two;\nfn f() { \"crate::a\"; crate::a::c::g() }",
        ),
        ("src/d.rs", "mod e;\nfn f() { e::g() }"),
        ("src/d/e.rs", "use super::f;"),
    ];
    let sources = sources.map(|(path, text)| (PathBuf::from(path), text.to_owned()));
    let found = imports(&sources);
    assert_eq!(found["a"], BTreeSet::from(["b".to_owned()]));
    assert_eq!(found["a::c"], BTreeSet::from(["b".to_owned()]));
    assert_eq!(found["b"], BTreeSet::from(["a::c".to_owned()]));
    assert_eq!(found["d"], BTreeSet::from(["d::e".to_owned()]));
    assert_eq!(circles(&found).len(), 2);
}

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root).unwrap().to_owned(), text));
            }
        }
    }
    found.sort();
    found
}

/// Which modules each module imports from.
fn imports(sources: &[(PathBuf, String)]) -> BTreeMap<String, BTreeSet<String>> {
    // The binary is above the library: nothing can import from it.
    let is_library = |path: &Path| !path.ends_with("main.rs") && !path.ends_with("output.rs");
    let sources = sources.iter().filter(|(path, _)| is_library(path));
    let modules: Vec<(Module, &String)> =
        sources.map(|(path, text)| (module(path), text)).collect();
    let known: BTreeSet<&Module> = modules.iter().map(|(module, _)| module).collect();
    let mut imports = BTreeMap::new();
    for (module, text) in &modules {
        let mut found = BTreeSet::new();
        let children = known.iter().filter(|child| {
            child.split_last().is_some_and(|(_, parent)| parent == module.as_slice())
        });
        let children: Vec<&str> = match module.is_empty() {
            true => Vec::new(), // the crate's own page declares all and imports nothing
            false => children.filter_map(|child| Some(child.last()?.as_str())).collect(),
        };
        for path in paths(&code(text), &children) {
            let Some(path) = absolute(&path, module) else { continue };
            let mut to = path.as_slice();
            while !to.is_empty() && !known.contains(&to.to_vec()) {
                to = &to[..to.len() - 1];
            }
            if !to.is_empty() && to != module.as_slice() {
                found.insert(to.join("::"));
            }
        }
        imports.insert(module.join("::"), found);
    }
    imports
}

fn module(path: &Path) -> Module {
    let path = path.with_extension("");
    let parts = path.iter().skip(1).map(|part| part.to_string_lossy().into_owned());
    parts.filter(|part| part != "lib").collect()
}

/// The code of a file: without comments, without what stands in quotation marks, without its unit tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let without_comments: String = text
        .lines()
        .map(|line| match line.split_once("//") {
            Some((before, _)) if before.matches('"').count() % 2 == 0 => before,
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n");
    without_comments.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

/// All paths that begin with `crate`, `super`, `self` or a child, with those of each `use` of several written out.
fn paths(code: &str, children: &[&str]) -> Vec<Module> {
    let mut found = Vec::new();
    for root in ["crate", "super", "self"].iter().chain(children) {
        for (at, _) in code.match_indices(&format!("{root}::")) {
            let before = code[..at].chars().next_back();
            // In `pub(in crate::…)` it is a visibility.
            let is_visibility = code[..at].ends_with("(in ");
            if !is_visibility
                && !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            {
                expand(&code[at..], Vec::new(), &mut found);
            }
        }
    }
    found
}

/// Reads a path, or a tree of them in braces; returns how many bytes it took.
fn expand(code: &str, head: Module, found: &mut Vec<Module>) -> usize {
    let mut path = head;
    let mut at = 0;
    loop {
        let rest = &code[at..];
        let name = rest.trim_start();
        let spaces = rest.len() - name.len();
        let length = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
        if length > 0 {
            path.push(name[..length].to_owned());
            at += spaces + length;
            if code[at..].starts_with("::") {
                at += 2;
                continue;
            }
        } else if name.starts_with('{') {
            at += spaces + 1;
            loop {
                at += expand(&code[at..], path.clone(), found);
                // An alias, white space and the comma after each.
                let end = code[at..].find([',', '}', ';']).unwrap_or(code.len() - at);
                at += end + 1;
                if !code[..at].ends_with(',') {
                    return at;
                }
            }
        }
        found.push(path);
        return at;
    }
}

fn absolute(path: &[String], module: &Module) -> Option<Module> {
    let mut base = module.clone();
    let mut parts = path.iter().peekable();
    match parts.next()?.as_str() {
        "crate" => base.clear(),
        "super" => drop(base.pop()),
        "self" => {}
        child => base.push(child.to_owned()),
    }
    while parts.next_if(|part| *part == "super").is_some() {
        base.pop();
    }
    base.extend(parts.filter(|part| *part != "self").cloned());
    Some(base)
}

/// Sets of modules that can reach each other, each with the imports that tie it.
fn circles(imports: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<String>> {
    let reach = |from: &String| {
        let mut seen = BTreeSet::new();
        let mut open = vec![from];
        while let Some(module) = open.pop() {
            for next in imports.get(module).into_iter().flatten() {
                if seen.insert(next) {
                    open.push(next);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        imports.keys().map(|module| (module, reach(module))).collect();
    let mut told = BTreeSet::new();
    let mut circles = Vec::new();
    for module in imports.keys() {
        if !reached[module].contains(module) || told.contains(module) {
            continue;
        }
        let circle: Vec<&String> = reached[module]
            .iter()
            .copied()
            .filter(|other| reached.get(other).is_some_and(|reach| reach.contains(module)))
            .collect();
        told.extend(circle.iter().copied());
        let ties = circle.iter().flat_map(|from| {
            let to = imports[*from].iter().filter(|to| circle.contains(to));
            to.map(move |to| format!("{from} imports {to}"))
        });
        circles.push(ties.collect());
    }
    circles
}
