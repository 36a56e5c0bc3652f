//! Libraries of the system that are loaded when they are first needed.

use std::ffi::{CStr, CString, c_int, c_void};

use bstr::ByteSlice;

/// A library that stays loaded: some leave threads' data behind.
pub(super) struct Library {
    handle: *mut c_void,
    name: &'static CStr,
}

/// What helps where a library cannot be loaded.
pub(super) fn remedy(package: &str) -> String {
    match is_linked_statically() {
        true => "this program is linked statically and loads no libraries".to_owned(),
        false => format!("install the package {package}"),
    }
}

/// Whether the program has no dynamic linker. What it loads would bring a second libc, and may crash in it.
fn is_linked_statically() -> bool {
    unsafe extern "C" fn look(
        info: *mut libc::dl_phdr_info,
        _: libc::size_t,
        found: *mut c_void,
    ) -> c_int {
        // SAFETY: the structure, and the headers that it names, are there for the length of this call; `found` is
        // the caller's.
        unsafe {
            let count = usize::from((*info).dlpi_phnum);
            let headers = std::slice::from_raw_parts((*info).dlpi_phdr, count);
            let interpreted = headers.iter().any(|one| one.p_type == libc::PT_INTERP);
            found.cast::<bool>().write(!interpreted);
        }
        // The program comes first, and is all that is looked at.
        1
    }
    let mut found = false;
    // SAFETY: `found` outlives the call, and nothing else writes to it.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut found).cast()) };
    found
}

impl Library {
    /// The library of that file name; None where it cannot be loaded.
    pub(super) fn load(name: &'static CStr) -> Option<Self> {
        if is_linked_statically() {
            return None;
        }
        // SAFETY: a NUL-terminated name. The initialisers of the library are its own matter.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        (!handle.is_null()).then_some(Self { handle, name })
    }

    /// The library of that file name.
    ///
    /// # Errors
    /// Where it cannot be loaded: one line that begins with `who_needs` it and names the package to install.
    pub(super) fn needed(
        name: &'static CStr,
        who_needs: &str,
        package: &str,
    ) -> Result<Self, String> {
        Self::load(name).ok_or_else(|| {
            let name = name.to_string_lossy();
            format!(
                "{who_needs} {name}, which cannot be loaded: {}",
                remedy(package)
            )
        })
    }

    /// The place of a function, whose name ends with a zero.
    pub(super) fn symbol(&self, name: &str) -> Result<*mut c_void, String> {
        debug_assert!(name.ends_with('\0'));
        // SAFETY: the name ends with a zero; the library is open. What it depends on is searched too.
        let found = unsafe { libc::dlsym(self.handle, name.as_ptr().cast()) };
        if found.is_null() {
            let (library, name) = (self.name.to_string_lossy(), name.trim_end_matches('\0'));
            return Err(format!("{library} has no function {name}"));
        }
        Ok(found)
    }

    /// The place of a function in a version of the library's own.
    pub(super) fn versioned(&self, name: &CStr, version: &CStr) -> Result<*mut c_void, String> {
        // SAFETY: NUL-terminated names; the library is open.
        let found = unsafe { libc::dlvsym(self.handle, name.as_ptr(), version.as_ptr()) };
        if found.is_null() {
            let text = |text: &CStr| text.to_string_lossy().into_owned();
            let (library, name, version) = (text(self.name), text(name), text(version));
            return Err(format!(
                "{library} has no function {name} of version {version}"
            ));
        }
        Ok(found)
    }
}

/// Keeps in memory, to the end of the process, each library that is loaded now and whose path has `part` in it: one that
/// unloads its own plug-ins may do so while a thread runs in them.
pub(super) fn keep_loaded(part: &CStr) {
    struct Search<'a> {
        part: &'a [u8],
        found: Vec<CString>,
    }
    unsafe extern "C" fn look(
        info: *mut libc::dl_phdr_info,
        _: libc::size_t,
        search: *mut c_void,
    ) -> c_int {
        // SAFETY: the structure and its name are there for the length of this call; `search` is the caller's, and is
        // used here alone.
        let (name, search) = unsafe {
            let name = (*info).dlpi_name;
            if name.is_null() {
                return 0;
            }
            (CStr::from_ptr(name), &mut *search.cast::<Search<'_>>())
        };
        if name.to_bytes().find(search.part).is_some() {
            search.found.push(name.to_owned());
        }
        0
    }
    let mut search = Search {
        part: part.to_bytes(),
        found: Vec::new(),
    };
    // SAFETY: `search` outlives the call, and nothing else uses it.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut search).cast()) };
    for name in search.found {
        let kept = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
        // SAFETY: a NUL-terminated name of what is loaded already. The handle is never closed.
        unsafe { libc::dlopen(name.as_ptr(), kept) };
    }
}

/// Makes `struct Functions` with the functions of a library that are used, under their own names, and
/// `Functions::load`, which finds them.
macro_rules! functions {
    ($($name:ident: ($($arg:ty),*) $(-> $ret:ty)?;)*) => {
        /// The functions that are used, under their own names.
        #[allow(non_snake_case, reason = "the names of the library")]
        struct Functions {
            $($name: unsafe extern "C" fn($($arg),*) $(-> $ret)?,)*
        }

        impl Functions {
            /// # Safety
            /// `library` is of the version that the signatures are of.
            unsafe fn load(library: &$crate::sys::library::Library) -> Result<Self, String> {
                Ok(Self {
                    $($name: {
                        let found = library.symbol(concat!(stringify!($name), "\0"))?;
                        // SAFETY: the function of that name has this signature in this version, by the
                        // library's manual.
                        unsafe {
                            std::mem::transmute::<
                                *mut ::std::ffi::c_void,
                                unsafe extern "C" fn($($arg),*) $(-> $ret)?,
                            >(found)
                        }
                    },)*
                })
            }
        }
    };
}

pub(super) use functions;
