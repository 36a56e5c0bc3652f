//! Tests that every function, constant and structure of the header follows the rules of the ABI, which cannot be
//! repaired once it is released.

const HEADER: &str = include_str!("../../include/platter.h");

/// Functions on a status or an error that return a number: they cannot fail.
const NUMBERS: [&str; 3] = [
    "platter_error_status",
    "platter_error_errno",
    "platter_status_errno",
];

/// The header without its comments, preprocessor lines and lines for C++.
fn code() -> String {
    let mut code = String::new();
    let mut rest = HEADER;
    while let Some((before, comment)) = rest.split_once("/*") {
        code.push_str(before);
        rest = comment.split_once("*/").unwrap().1;
    }
    code.push_str(rest);
    code.lines()
        .filter(|line| !line.starts_with('#') && !line.starts_with("extern "))
        .flat_map(|line| [line, "\n"])
        .collect()
}

struct Function {
    result: String,
    name: String,
    parameters: Vec<String>,
}

impl Function {
    /// Whether it can fail, and reports the error.
    fn has_error(&self) -> bool {
        let last = self.parameters.last();
        last.is_some_and(|last| last == "struct platter_error **err")
    }
}

fn functions() -> Vec<Function> {
    let code = code();
    let functions: Vec<_> = code
        .split(';')
        .filter(|item| !item.contains('{') && !item.contains("typedef"))
        .filter_map(|item| {
            let (head, parameters) = item.trim().split_once('(')?;
            let at = head.find("platter_").filter(|_| !head.contains('('))?;
            // The name is the last word; a pointer's star precedes it.
            let name = head.rsplit([' ', '*']).next().filter(|_| at < head.len())?;
            let parameters = parameters.strip_suffix(')')?.split(',');
            let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            Some(Function {
                result: words(head.strip_suffix(name)?),
                name: name.to_owned(),
                parameters: parameters.map(words).collect(),
            })
        })
        .collect();
    assert!(functions.len() > 200, "{}", functions.len());
    functions
}

#[test]
fn what_can_fail_returns_a_status_and_takes_flags_and_the_place_of_an_error() {
    for function in functions().iter().filter(|function| function.has_error()) {
        let name = &function.name;
        assert_eq!(function.result, "int", "{name}");
        let [.., flags, _] = &function.parameters[..] else {
            panic!("{name} has no flags");
        };
        assert_eq!(flags, "uint32_t flags", "{name}");
    }
}

#[test]
fn what_takes_no_error_frees_cancels_submits_or_answers_at_once() {
    for function in functions().iter().filter(|function| !function.has_error()) {
        let name = function.name.as_str();
        let keeps = match function.result.as_str() {
            "void" => {
                ["_free", "_cancel"].iter().any(|end| name.ends_with(end))
                    || name == "platter_free"
                    || name.starts_with("platter_queue_")
            }
            "int" => NUMBERS.contains(&name),
            _ => !function.parameters.iter().any(|each| each.contains("**")),
        };
        assert!(keeps, "{name} can fail and takes no error, or does more");
    }
}

#[test]
fn what_leaves_by_a_place_comes_first() {
    for function in functions() {
        let outs = function.parameters.iter().map(|each| {
            let name = each.rsplit([' ', '*']).next().unwrap_or_default();
            name == "out" || name.starts_with("out_")
        });
        let outs: Vec<bool> = outs.collect();
        let behind = outs.iter().skip_while(|out| **out).any(|out| *out);
        assert!(!behind, "{}", function.name);
    }
}

#[test]
fn no_type_is_one_that_compilers_may_lay_out_as_they_like() {
    let code = code();
    let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
    for word in words {
        let loose = [
            "bool", "_Bool", "short", "long", "unsigned", "enum", "union", "float",
        ];
        assert!(!loose.contains(&word), "{word}");
    }
    assert!(!code.contains("..."), "variable arguments");
}

#[test]
fn structures_tell_their_size_or_have_room() {
    let code = code();
    let structures: Vec<_> = code
        .split("typedef struct ")
        .filter_map(|item| item.split_once('}')?.0.split_once('{'))
        .collect();
    assert!(structures.len() > 10, "{}", structures.len());
    for (name, members) in structures {
        let sized = members.trim_start().starts_with("size_t size;");
        assert!(sized || members.contains("reserved"), "{name}");
        assert!(!members.contains(" : "), "{name} has bits");
    }
}

#[test]
fn constants_are_literals() {
    let defined = HEADER.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix("#define ")?.split_once(' ')?;
        Some((name, value))
    });
    let defined: Vec<_> = defined.collect();
    assert!(defined.len() > 300, "{}", defined.len());
    for (name, value) in defined {
        let number = value.trim_end_matches("ull").parse::<i128>().is_ok();
        let text = value.starts_with('"') && value.ends_with('"');
        assert!(number || text, "{name} {value}");
        assert!(!name.contains('('), "{name}");
    }
}

/// Each function with its comment.
fn comments() -> Vec<(String, &'static str)> {
    let mut comments = Vec::new();
    for part in HEADER.split("/**").skip(1) {
        let (comment, code) = part.split_once("*/").unwrap();
        let head = code.split(['(', ';', '{']).next().unwrap_or_default();
        let name = head.rsplit([' ', '*', '\n']).next().unwrap_or_default();
        let is_function = code.trim_start().contains(&format!("{name}("));
        if name.starts_with("platter_") && is_function && !head.contains("typedef") {
            comments.push((name.to_owned(), comment));
        }
    }
    assert_eq!(comments.len(), functions().len());
    comments
}

#[test]
fn every_function_tells_its_threads_its_version_and_its_statuses() {
    let fails: Vec<_> = functions()
        .into_iter()
        .filter(Function::has_error)
        .collect();
    for (name, comment) in comments() {
        let words = comment.split_whitespace().filter(|word| *word != "*");
        let comment = words.collect::<Vec<_>>().join(" ").to_lowercase();
        assert!(comment.contains("threads"), "{name}: which threads?");
        assert!(comment.contains("since 0."), "{name}: since when?");
        if fails.iter().any(|function| function.name == name) {
            assert!(comment.contains("statuses"), "{name}: which statuses?");
        }
    }
}

/// The comment of a function on one line, followed by that of the function to which its "As `…`" refers.
fn told(name: &str) -> String {
    let comments = comments();
    let (_, comment) = comments.iter().find(|(known, _)| known == name).unwrap();
    let words = comment.split_whitespace().filter(|word| *word != "*");
    let comment = words.collect::<Vec<_>>().join(" ");
    match comment.strip_prefix("As `") {
        Some(rest) => {
            let other = rest.split("()").next().unwrap();
            comment.clone() + " " + &told(other)
        }
        None => comment,
    }
}

#[test]
fn strings_and_structures_that_leave_tell_how_long_they_live() {
    let mut borrowed = 0;
    for function in functions() {
        let name = &function.name;
        let out = function.parameters.first().map_or("", String::as_str);
        let text = told(name);
        if function.result.starts_with("const ")
            || out.starts_with("const ") && out.ends_with("**out")
        {
            borrowed += 1;
            assert!(text.to_lowercase().contains("live"), "{name}: how long?");
        }
        if out == "char **out" {
            assert!(text.contains("`platter_free()`"), "{name}: freed how?");
        }
        if out.starts_with("struct ") && out.ends_with("**out") {
            let end = ["_free()`", "platter_image_close()`"];
            let says = end.iter().any(|end| text.contains(end));
            assert!(says, "{name}: who frees it, and how?");
        }
    }
    assert!(borrowed > 20, "{borrowed}");
}

#[test]
fn every_job_tells_what_it_leaves_when_it_is_cancelled() {
    let mut jobs = 0;
    for function in functions() {
        if function.name.ends_with("_job_new") {
            jobs += 1;
            let text = told(&function.name).to_lowercase();
            assert!(text.contains("cancelled"), "{}: what?", function.name);
        }
    }
    assert!(jobs >= 16, "{jobs}");
}

/// Functions whose name has one word after the prefix.
const SHORT: [&str; 2] = ["platter_free", "platter_inspect"];

#[test]
fn names_are_of_an_object_and_what_is_done_with_it() {
    let is_word = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    for function in functions() {
        let name = function.name.as_str();
        let words: Vec<_> = name.split('_').collect();
        assert!(words.iter().all(|word| is_word(word)), "{name}");
        assert!(words.len() >= 3 || SHORT.contains(&name), "{name}");
        assert!(
            words[0] == "platter" && words.last() != Some(&"t"),
            "{name}"
        );
    }
    let defined = HEADER
        .lines()
        .filter_map(|line| line.strip_prefix("#define "));
    for name in defined
        .filter_map(|line| line.split_once(' '))
        .map(|(name, _)| name)
    {
        let words = name.strip_prefix("PLATTER_").unwrap();
        assert_eq!(words, words.to_uppercase(), "{name}");
    }
    let code = code();
    let mut types = 0;
    for item in code.split(';').map(str::trim) {
        // The brace distinguishes the end of a structure from its last member.
        let Some(name) = item.strip_prefix("} ").filter(|name| !name.contains('/')) else {
            continue;
        };
        types += 1;
        assert!(
            code.contains(&format!("typedef struct {name} {{")),
            "{name}"
        );
        assert!(
            name.starts_with("platter_") && !name.ends_with("_t"),
            "{name}"
        );
    }
    for item in code.split("typedef struct ").skip(1) {
        let (name, rest) = item.split_once(' ').unwrap();
        if !rest.starts_with('{') {
            types += 1;
            assert!(rest.starts_with(&format!("{name};")), "{name}");
            assert!(
                name.starts_with("platter_") && !name.ends_with("_t"),
                "{name}"
            );
        }
    }
    assert!(types >= 30, "{types}");
    for item in code
        .split("typedef ")
        .filter(|item| item.contains("(*platter_"))
    {
        let name = item.split("(*").nth(1).unwrap().split(')').next().unwrap();
        assert!(name.ends_with("_fn"), "{name}");
    }
}

#[test]
fn what_is_made_can_be_freed() {
    let functions = functions();
    let made = functions.iter().filter_map(|function| {
        let kind = function.parameters.first()?.strip_prefix("struct ")?;
        kind.strip_suffix(" **out")
    });
    let made: Vec<_> = made.collect();
    assert!(made.len() > 40, "{made:?}");
    for kind in made {
        // Closing an image may fail, but consumes it in any case.
        let end = match kind {
            "platter_image" => "platter_image_close".to_owned(),
            _ => format!("{kind}_free"),
        };
        assert!(functions.iter().any(|each| each.name == end), "no {end}");
    }
}

#[test]
fn callbacks_get_the_data_of_their_user_and_are_let_go() {
    let code = code();
    let types = code
        .split("typedef ")
        .filter(|item| item.contains("(*platter_"));
    for item in types {
        let parameters = item.split(';').next().unwrap_or_default();
        let mut parameters = parameters.trim_end_matches(')').split(['(', ',']);
        let last = parameters.next_back().unwrap_or_default();
        assert_eq!(last.trim(), "void *user_data", "{item}");
    }
    for function in functions() {
        let takes = |start: &str| function.parameters.iter().any(|each| each.contains(start));
        // Its callback is called only until the function returns.
        let at_once = function.name == "platter_report_write";
        if takes("_fn ") && !takes("struct platter_storage_ops") {
            assert!(takes("void *user_data"), "{}", function.name);
            assert!(
                takes("platter_free_fn free_fn") || at_once,
                "{}",
                function.name
            );
        }
    }
}

#[test]
fn statuses_are_numbered_downward_without_a_gap() {
    let numbers = HEADER.lines().filter_map(|line| {
        let value = line
            .strip_prefix("#define PLATTER_STATUS_")?
            .split_once(' ')?
            .1;
        value.parse::<i32>().ok()
    });
    let numbers: Vec<_> = numbers.collect();
    let expected: Vec<_> = (1..=numbers.len()).map(|n| -10_000 - n as i32).collect();
    assert!(numbers.len() >= 17 && numbers == expected, "{numbers:?}");
}
