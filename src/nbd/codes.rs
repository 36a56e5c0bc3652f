//! Numbers on the wire with the names that the specification gives them.

/// Makes a type of numbers: each is written once, as a constant whose name is also what `name` gives.
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

            /// The name that the specification gives it, without the prefix; None for an unknown one.
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
