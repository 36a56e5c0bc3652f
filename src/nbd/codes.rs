//! Numeric codes of the protocol, with their names in the specification.

/// Defines a type of codes: each one is written once, as a constant whose name is also the result of `name`.
macro_rules! codes {
    (
        $(#[$about:meta])*
        $type:ident: $number:ty;
        $($(#[$doc:meta])* $code:ident = $value:expr;)+
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $type(pub $number);

        impl $type {
            $($(#[$doc])* pub const $code: Self = Self($value);)+

            /// The specification's name, without the prefix; None for an unknown code.
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$code => Some(stringify!($code)),)+
                    _ => None,
                }
            }
        }
    };
}

pub(super) use codes;
