//! Tests that no panic leaves the library: every function of the C ABI does its work inside a guard, or cannot panic.

use std::collections::{BTreeMap, BTreeSet};

use crate::architecture;

/// The functions that catch a panic; all of them are in `boundary`.
const GUARDS: [&str; 8] = [
    "call",
    "call_mut",
    "call_out",
    "call_ref",
    "call_ref_out",
    "caught",
    "free",
    "get",
];

/// Functions without a guard, and why they cannot panic. Guards are not safe in signal handlers: the thread-local state
/// that they use may be created on first use.
const UNGUARDED: [(&str, &str); 11] = [
    ("platter_control_cancel", "stores an atomic"),
    (
        "platter_convert_conflict_text",
        "looks a number up in a table that is built in",
    ),
    ("platter_free", "calls free(3) alone"),
    ("platter_job_cancel", "stores an atomic"),
    (
        "platter_job_pause",
        "stores atomics and wakes threads; what a refusal tells is made within a guard",
    ),
    (
        "platter_job_resume",
        "stores atomics and wakes threads; what a refusal tells is made within a guard",
    ),
    (
        "platter_job_set_rate",
        "stores atomics and wakes threads; what a refusal tells is made within a guard",
    ),
    (
        "platter_status_errno",
        "looks a number up in a table that is built in",
    ),
    (
        "platter_status_name",
        "looks a number up in a table that is built in",
    ),
    ("platter_version_number", "gives a constant"),
    ("platter_version_string", "gives a constant"),
];

/// A function in a source file, and what it calls.
struct Function {
    is_exported: bool,
    calls: BTreeSet<String>,
}

/// The top-level functions of a source file.
fn functions(code: &str) -> BTreeMap<String, Function> {
    let mut found = BTreeMap::new();
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let begins = ["fn ", "pub", "unsafe ", "extern "];
        let Some((head, rest)) = line.split_once("fn ") else {
            continue;
        };
        if !begins.iter().any(|begin| line.starts_with(begin)) {
            continue;
        }
        let name = rest.split(['(', '<']).next().unwrap_or_default();
        let mut body = rest[name.len()..].to_owned();
        for line in lines.by_ref().take_while(|line| *line != "}") {
            body.push_str(line);
            body.push('\n');
        }
        let function = Function {
            is_exported: head.starts_with("pub ") && head.contains("extern \"C\""),
            calls: calls(&body),
        };
        found.insert(name.to_owned(), function);
    }
    found
}

/// What a body calls by an unqualified name, or by a path into `boundary` or its own module.
fn calls(body: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = BTreeSet::new();
    for (at, _) in body.match_indices('(') {
        let before = &body[..at];
        let start = before.rfind(|c| !is_part(c)).map_or(0, |place| place + 1);
        let of = &before[..start];
        let is_plain = !of.ends_with(['.', ':']);
        if is_plain || of.ends_with("boundary::") || of.ends_with("self::") {
            found.insert(before[start..].to_owned());
        }
    }
    found
}

#[test]
fn every_function_is_guarded_or_has_a_reason_why_it_cannot_panic() {
    let mut unguarded = BTreeSet::new();
    let mut exported = 0;
    for (name, (_, code)) in architecture::sources() {
        if name.first().is_none_or(|first| first != "capi") || name.ends_with(&["guards".into()]) {
            continue;
        }
        let functions = functions(&code);
        // A function of the module that itself calls a guard counts as one.
        let is_guarded = |function: &Function| {
            let guards = |call: &String| {
                GUARDS.contains(&call.as_str())
                    || functions.get(call).is_some_and(|called| {
                        called.calls.iter().any(|call| GUARDS.contains(&&**call))
                    })
            };
            function.calls.iter().any(guards)
        };
        for (name, function) in functions.iter().filter(|(_, each)| each.is_exported) {
            exported += 1;
            if !is_guarded(function) {
                unguarded.insert(name.clone());
            }
        }
    }
    assert!(exported > 240, "{exported}");
    let known = UNGUARDED.map(|(name, _)| name.to_owned());
    assert_eq!(unguarded, known.into());
}

#[test]
fn what_signal_handlers_may_call_needs_no_guard() {
    const HEADER: &str = include_str!("../../include/platter.h");
    let mut promised = 0;
    for part in HEADER.split("/**").skip(1) {
        let (comment, code) = part.split_once("*/").unwrap();
        if !comment.contains("safe in a signal handler") {
            continue;
        }
        let head = code.split('(').next().unwrap_or_default();
        let name = head.rsplit([' ', '*', '\n']).next().unwrap_or_default();
        assert!(
            UNGUARDED.iter().any(|(known, _)| *known == name),
            "{name} has a guard"
        );
        promised += 1;
    }
    assert!(promised >= 8, "{promised}");
}

#[test]
fn a_call_of_a_method_is_no_guard() {
    let code = "pub extern \"C\" fn platter_a(b: u32) -> u32 {\n    list.get(1) + libc::free(b)\n}\n\
                fn helper() {\n    boundary::get(0, || 1)\n}\n";
    let functions = functions(code);
    assert!(functions["platter_a"].is_exported);
    assert!(!functions["platter_a"].calls.contains("get"));
    assert!(!functions["platter_a"].calls.contains("free"));
    assert!(functions["helper"].calls.contains("get"));
}
