//! Text from images for people: on a terminal it can neither steer nor hide anything.

use std::borrow::Cow;

/// Text with its control characters escaped, NUL and newline included, and with those that turn the
/// direction of writing or take no room. All else stays as it is.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if steers(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

fn steers(c: char) -> bool {
    c.is_control()
        || matches!(u32::from(c), 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xfeff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_escaped_and_all_else_is_not() {
        assert_eq!(printable("a\0b\n\u{1b}[2J"), "a\\u{0}b\\u{a}\\u{1b}[2J");
        assert_eq!(printable("x\u{85}\u{202e}y"), "x\\u{85}\\u{202e}y");
        let plain = "plain \\ 'é' \u{1f600} \u{fffd}";
        assert!(matches!(printable(plain), Cow::Borrowed(same) if same == plain));
    }
}
