//! A pointer that must not be NULL is refused by its name; of every other one the manual says what NULL stands for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::{root, source};

/// A function of the header with its comment.
struct Function {
    comment: String,
    parameters: Vec<String>,
}

fn one_line(text: &str) -> String {
    let words = text.split_whitespace().filter(|word| *word != "*");
    words.collect::<Vec<_>>().join(" ")
}

fn functions() -> BTreeMap<String, Function> {
    let header = fs::read_to_string(root().join("include/platter.h")).expect("the header");
    let mut found = BTreeMap::new();
    for part in header.split("/**").skip(1) {
        let (comment, code) = part.split_once("*/").expect("the end of a comment");
        let code = code.split(';').next().unwrap_or_default();
        let Some((head, parameters)) = code.split_once('(') else {
            continue;
        };
        let name = head.rsplit([' ', '*', '\n']).next().unwrap_or_default();
        if !name.starts_with("platter_") || head.contains(['{', '#']) || head.contains("typedef") {
            continue;
        }
        let parameters = parameters.trim_end().trim_end_matches(')').split(',');
        let function = Function {
            comment: one_line(comment),
            parameters: parameters.map(one_line).collect(),
        };
        found.insert(name.to_owned(), function);
    }
    assert!(found.len() > 200, "{}", found.len());
    found
}

/// What a program shows to be refused: a function, and the name of a parameter that is NULL.
fn refused(program: &str) -> BTreeSet<(String, String)> {
    let text = fs::read_to_string(source(program)).expect("the program");
    let mut found = BTreeSet::new();
    for statement in text.split(';') {
        let Some((_, call)) = statement
            .split_once("NO_NULL(")
            .or_else(|| statement.split_once("FAILS("))
        else {
            continue;
        };
        let name = call.split('(').next().unwrap_or_default().trim();
        let told = call.rsplit('"').nth(1).unwrap_or_default();
        let parameter = match statement.contains("NO_NULL(") {
            true => Some(told),
            false => told
                .strip_prefix('\'')
                .and_then(|told| told.strip_suffix("' is NULL")),
        };
        found.extend(parameter.map(|parameter| (name.to_owned(), parameter.to_owned())));
    }
    found
}

#[test]
fn every_pointer_is_refused_by_its_name_or_the_manual_says_what_null_is() {
    let functions = functions();
    let mut refused = refused("arguments");
    // What is called from a callback is tested there.
    refused.extend(self::refused("secrets"));
    let mut missing = Vec::new();
    let mut tested = 0;
    for (name, function) in &functions {
        if function.parameters.last().map(String::as_str) != Some("struct platter_error **err") {
            continue;
        }
        // A page that is as another one says only what differs.
        let mut told = &function.comment;
        let mut says_null = told.contains("NULL");
        while let Some(rest) = told.strip_prefix("As `") {
            told = &functions[rest.split("()").next().unwrap_or_default()].comment;
            says_null |= told.contains("NULL");
        }
        for parameter in &function.parameters[..function.parameters.len() - 1] {
            let Some((kind, name_of)) = parameter.rsplit_once(' ') else {
                continue;
            };
            let is_pointer = name_of.starts_with('*') || kind.ends_with("_fn");
            let parameter = name_of.trim_start_matches('*').trim_end_matches('_');
            // What callbacks get is theirs alone.
            if !is_pointer || ["user_data", "free_fn"].contains(&parameter) {
                continue;
            }
            tested += 1;
            let shown = refused.contains(&(name.clone(), parameter.to_owned()));
            if !shown && !says_null {
                missing.push(format!("{name}: {parameter}"));
            }
        }
    }
    assert!(tested > 400, "{tested}");
    assert!(missing.is_empty(), "NULL is not tested: {missing:#?}");
}
