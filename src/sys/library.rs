//! System libraries that are loaded on first use.

use std::ffi::{CStr, CString, c_int, c_void};

use bstr::ByteSlice;

/// A library that stays loaded, because some leave thread-local data behind.
pub(super) struct Library {
    handle: *mut c_void,
    name: &'static CStr,
}

/// What to do if a library cannot be loaded.
pub(super) fn remedy(package: &str) -> String {
    match is_linked_statically() {
        true => "this program is linked statically and loads no libraries".to_owned(),
        false => format!("install the package {package}"),
    }
}

/// Whether the program has no dynamic linker. Anything loaded would bring a second libc, and might crash in it.
fn is_linked_statically() -> bool {
    unsafe extern "C" fn look(
        info: *mut libc::dl_phdr_info,
        _: libc::size_t,
        found: *mut c_void,
    ) -> c_int {
        // SAFETY: the structure, and the headers that it refers to, exist for the duration of this call; `found` is the
        // caller's.
        unsafe {
            let count = usize::from((*info).dlpi_phnum);
            let headers = std::slice::from_raw_parts((*info).dlpi_phdr, count);
            let interpreted = headers.iter().any(|one| one.p_type == libc::PT_INTERP);
            found.cast::<bool>().write(!interpreted);
        }
        // The program comes first, and is all that needs to be examined.
        1
    }
    let mut found = false;
    // SAFETY: `found` outlives the call, and nothing else writes to it.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut found).cast()) };
    found
}

impl Library {
    /// Loads the library with that file name; None if it cannot be loaded.
    pub(super) fn load(name: &'static CStr) -> Option<Self> {
        if is_linked_statically() {
            return None;
        }
        // SAFETY: a NUL-terminated name. The initialisers of the library are its own responsibility.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        (!handle.is_null()).then_some(Self { handle, name })
    }

    /// Loads the library with that file name.
    ///
    /// # Errors
    /// If it cannot be loaded: one line that begins with `who_needs` it and names the package to install.
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

    /// The address of a function; `name` must end with a NUL.
    pub(super) fn symbol(&self, name: &str) -> Result<*mut c_void, String> {
        debug_assert!(name.ends_with('\0'));
        // SAFETY: the name ends with a NUL; the library is open. Its dependencies are searched too.
        let found = unsafe { libc::dlsym(self.handle, name.as_ptr().cast()) };
        if found.is_null() {
            let (library, name) = (self.name.to_string_lossy(), name.trim_end_matches('\0'));
            return Err(format!("{library} has no function {name}"));
        }
        Ok(found)
    }

    /// The address of a function with one of the library's own symbol versions.
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

/// Keeps in memory, until the process exits, each currently loaded library whose path contains `part`: a library that
/// unloads its own plug-ins may do so while a thread is running in them.
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
        // SAFETY: the structure and its name exist for the duration of this call; `search` is the caller's, and is used
        // only here.
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
        // SAFETY: a NUL-terminated name of a library that is loaded already. The handle is never closed.
        unsafe { libc::dlopen(name.as_ptr(), kept) };
    }
}

/// Defines `struct Functions` with the functions used from a library, under their own names, and `Functions::load`,
/// which looks them up.
macro_rules! functions {
    ($($name:ident: ($($arg:ty),*) $(-> $ret:ty)?;)*) => {
        /// The functions used, under their own names.
        #[allow(non_snake_case, reason = "the names of the library")]
        struct Functions {
            $($name: unsafe extern "C" fn($($arg),*) $(-> $ret)?,)*
        }

        impl Functions {
            /// # Safety
            /// The signatures must be those of `library`'s version.
            unsafe fn load(library: &$crate::sys::library::Library) -> Result<Self, String> {
                Ok(Self {
                    $($name: {
                        let found = library.symbol(concat!(stringify!($name), "\0"))?;
                        // SAFETY: according to the library's manual, the function of that name has this signature in
                        // this version.
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
