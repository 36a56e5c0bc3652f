# Builds, checks and installs Platter with cargo, a C compiler and pkg-config.
#
#   make                  everything, into build/
#   make check            every test
#   make crash            crash replay with new seeds for CRASH_MINUTES= (10); CRASH_SEED= runs one again
#   make interop          test programs of libnbd and nbd-server against the server of images
#   make packages         the Debian packages as their rules build them, and lintian over them
#   make network          every command over every protocol with large disks, and transfers that are interrupted
#   make fuzz             every fuzz target for FUZZ_SECONDS= (600); FUZZ_TARGETS= names some
#   make install          DESTDIR=, PREFIX=, LIBDIR=, INCLUDEDIR=, BINDIR=, MANDIR=, DATADIR=, DOCDIR=
#   make LTO=fat          the same, smaller and slower to build, for packages
#   make html             the manual as HTML, in build/manual/html
#   make python           the wheel of the Python package, in build/python/; make sdist, its sources
#   make dist             a tarball of the sources, in build/
#   make demo, make bench, make header, make uninstall, make clean

CARGO ?= cargo
CC ?= cc
PKG_CONFIG ?= pkg-config
PYTHON ?= python3
CFLAGS ?= -O2 -g

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
DATADIR ?= $(PREFIX)/share
DOCDIR ?= $(DATADIR)/doc/platter
SUPPDIR = $(DATADIR)/platter
CMAKEDIR = $(LIBDIR)/cmake/Platter
BASH_COMPLETIONS = $(DATADIR)/bash-completion/completions
ZSH_COMPLETIONS = $(DATADIR)/zsh/site-functions
FISH_COMPLETIONS = $(DATADIR)/fish/vendor_completions.d

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# Before 1.0 each minor version has an ABI of its own.
ABI := $(shell echo $(VERSION) | cut -d. -f1,2)
SONAME := libplatter.so.$(ABI)
REAL := libplatter.so.$(VERSION)

BUILD := build
TARGET := $(or $(CARGO_TARGET_DIR),target)
CBINDGEN_VERSION := 0.29.2
CBINDGEN := $(BUILD)/tools/bin/cbindgen


all: $(BUILD)/platter-img man completions

# The bitcode of the dependencies is what LTO reads. Every build with the release profile has to ask for it, or they are
# compiled again.
release := RUSTFLAGS='$(strip $(RUSTFLAGS) -C embed-bitcode=yes)' $(CARGO)

# $(call renew,FILE,COPY): cargo knows what has changed; a copy is renewed only where it differs.
renew = cmp -s $(1) $(2) || cp $(1) $(2)

# Thin LTO takes both processors; LTO=fat takes one, and twice as long, for files that are a sixth smaller.
LTO ?= thin

rust:
	@mkdir -p $(BUILD)
	$(release) rustc --release --lib --crate-type staticlib -- -C lto=$(LTO) $(if $(filter fat,$(LTO)),-C codegen-units=1) \
		--print native-static-libs 2>$(BUILD)/rust.log || { cat $(BUILD)/rust.log >&2; exit 1; }
	@$(call renew,$(TARGET)/release/libplatter.a,$(BUILD)/rust.a)
	@grep -v 'native-static-libs\|link against the following' $(BUILD)/rust.log >&2 || true
	@# The compiler adds libgcc by itself, in the kind that goes with -static or without.
	@sed -n 's/.*native-static-libs: //p' $(BUILD)/rust.log | tail -n 1 | sed 's/-lgcc_s *//' >$(BUILD)/native-libs.new
	@test -s $(BUILD)/native-libs.new
	@$(call renew,$(BUILD)/native-libs.new,$(BUILD)/native-libs)

$(BUILD)/rust.a $(BUILD)/native-libs: rust ;

$(BUILD)/libplatter.a: $(BUILD)/rust.a platter.map ci/archive.sh
	sh ci/archive.sh $< $@ platter.map

# A cdylib from rustc has neither soname nor version nodes, so the archive is linked here.
$(BUILD)/$(REAL): $(BUILD)/rust.a $(BUILD)/native-libs platter.map ci/link-so.sh
	CC='$(CC)' LDFLAGS='$(LDFLAGS)' sh ci/link-so.sh $@ $(SONAME) $(BUILD)/rust.a "$$(cat $(BUILD)/native-libs)"
	ln -sf $(REAL) $(BUILD)/$(SONAME)
	ln -sf $(SONAME) $(BUILD)/libplatter.so

# $(call write_pc,FILE,PREFIX,LIBDIR,INCLUDEDIR)
write_pc = sed -e 's|@PREFIX@|$(2)|' -e 's|@LIBDIR@|$(3)|' -e 's|@INCLUDEDIR@|$(4)|' \
	-e 's|@VERSION@|$(VERSION)|' -e "s|@LIBS_PRIVATE@|$$(cat $(BUILD)/native-libs)|" \
	pkgconfig/platter.pc.in >$(1)

$(BUILD)/platter.pc: $(BUILD)/native-libs pkgconfig/platter.pc.in Makefile Cargo.toml
	$(call write_pc,$@,$(CURDIR),$(CURDIR)/$(BUILD),$(CURDIR)/include)

# The example client is built as any other program is: through pkg-config alone.
examples = PKG_CONFIG_PATH='$(CURDIR)/$(BUILD)' $(MAKE) --no-print-directory -C examples-c \
	CC='$(CC)' PKG_CONFIG='$(PKG_CONFIG)' CFLAGS='$(CFLAGS)'

$(BUILD)/platter-img: $(BUILD)/$(REAL) $(BUILD)/libplatter.a $(BUILD)/platter.pc include/platter.h FORCE
	$(examples) BUILD='$(CURDIR)/$(BUILD)' LDFLAGS='-Wl,-rpath,\$$$$ORIGIN $(LDFLAGS)'

# Pages for man and HTML come from the same sources.
man html: $(BUILD)/manual/html/index.html

$(BUILD)/manual/html/index.html: include/platter.h Cargo.toml bindings/python/examples/tasks.py \
		$(wildcard packaging/manual/* docs/manual/* docs/man/* examples-c/samples/*)
	@mkdir -p $(BUILD)
	sh packaging/manual/build.sh $(VERSION) $(BUILD)/manual

completions: $(BUILD)/completions/platter-img

$(BUILD)/completions/platter-img: $(BUILD)/platter-img packaging/completions.sh packaging/completions.awk
	sh packaging/completions.sh $(BUILD)/platter-img $(BUILD)/completions

# $(call write_cmake,DIRECTORY,LIBDIR,INCLUDEDIR)
write_cmake = for file in PlatterConfig PlatterConfigVersion; do \
	sed -e 's|@REAL@|$(REAL)|' -e 's|@SONAME@|$(SONAME)|' -e 's|@VERSION@|$(VERSION)|' \
		-e 's|@MAJOR@|$(word 1,$(subst ., ,$(VERSION)))|' -e 's|@MINOR@|$(word 2,$(subst ., ,$(VERSION)))|' \
		-e "s|@INCLUDEDIR_FROM_LIBDIR@|$$(realpath -m -s --relative-to='$(2)' '$(3)')|" \
		-e "s|@POINTER_SIZE@|$$(printf __SIZEOF_POINTER__ | $(CC) $(CFLAGS) -E -P -)|" \
		-e "s|@LIBS_PRIVATE@|$$(tr ' ' ';' <$(BUILD)/native-libs)|" \
		packaging/cmake/$$file.cmake.in >'$(1)'/$$file.cmake && chmod 644 '$(1)'/$$file.cmake || exit 1; \
done

check:
	sh ci/check.sh

CRASH_MINUTES ?= 10
crash:
	PLATTER_CRASH_MINUTES=$(CRASH_MINUTES) $(if $(CRASH_SEED),PLATTER_CRASH_SEED=$(CRASH_SEED) PLATTER_CRASH_MINUTES=0) \
		$(CARGO) test --test crash --test faults for_a_given_time -- --ignored --nocapture

# One after another: each has a disk of its own.
network: all
	sh ci/setup.sh
	PLATTER_IMG=$(BUILD)/platter-img $(CARGO) test --test cli -- --ignored --nocapture --test-threads=1 network:: remote_faults:: silent:: both_tools_

interop: all
	sh ci/interop.sh $(BUILD)/platter-img

packages:
	rm -rf $(BUILD)/tree
	$(MAKE) --no-print-directory install DESTDIR='$(CURDIR)/$(BUILD)/tree' PREFIX=/usr
	sh ci/debian.sh '$(CURDIR)/$(BUILD)/tree'

FUZZ_SECONDS ?= 600
fuzz:
	FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_SEED=$${FUZZ_SEED:-0} sh ci/fuzz.sh

demo: all
	sh ci/demo.sh

bench: all
	$(release) bench --bench side_by_side

header: $(CBINDGEN)
	$(CBINDGEN) --quiet --config cbindgen.toml --output include/platter.h src/capi/mod.rs

header-check: $(CBINDGEN)
	$(CBINDGEN) --quiet --config cbindgen.toml --output include/platter.h --verify src/capi/mod.rs

$(CBINDGEN):
	$(CARGO) install --debug cbindgen --version $(CBINDGEN_VERSION) --locked --root $(BUILD)/tools

EXAMPLES := $(sort $(wildcard examples-c/samples/*)) bindings/python/examples/tasks.py

install: all
	install -d '$(DESTDIR)$(LIBDIR)/pkgconfig' '$(DESTDIR)$(INCLUDEDIR)' '$(DESTDIR)$(BINDIR)'
	install -m 644 include/platter.h '$(DESTDIR)$(INCLUDEDIR)/platter.h'
	install -m 644 include/platter.hpp '$(DESTDIR)$(INCLUDEDIR)/platter.hpp'
	install -m 644 $(BUILD)/libplatter.a '$(DESTDIR)$(LIBDIR)/libplatter.a'
	install -m 755 $(BUILD)/$(REAL) '$(DESTDIR)$(LIBDIR)/$(REAL)'
	ln -sf $(REAL) '$(DESTDIR)$(LIBDIR)/$(SONAME)'
	ln -sf $(SONAME) '$(DESTDIR)$(LIBDIR)/libplatter.so'
	$(call write_pc,$(BUILD)/installed.pc,$(PREFIX),$(LIBDIR),$(INCLUDEDIR))
	install -m 644 $(BUILD)/installed.pc '$(DESTDIR)$(LIBDIR)/pkgconfig/platter.pc'
	install -d '$(DESTDIR)$(CMAKEDIR)'
	$(call write_cmake,$(DESTDIR)$(CMAKEDIR),$(LIBDIR),$(INCLUDEDIR))
	install -d '$(DESTDIR)$(BASH_COMPLETIONS)' '$(DESTDIR)$(ZSH_COMPLETIONS)' '$(DESTDIR)$(FISH_COMPLETIONS)'
	install -m 644 $(BUILD)/completions/platter-img '$(DESTDIR)$(BASH_COMPLETIONS)/platter-img'
	install -m 644 $(BUILD)/completions/_platter-img '$(DESTDIR)$(ZSH_COMPLETIONS)/_platter-img'
	install -m 644 $(BUILD)/completions/platter-img.fish '$(DESTDIR)$(FISH_COMPLETIONS)/platter-img.fish'
	@# Linked once more without the run path into the build tree.
	$(examples) BUILD='$(CURDIR)/$(BUILD)/installed' LDFLAGS='$(LDFLAGS)'
	install -m 755 $(BUILD)/installed/platter-img '$(DESTDIR)$(BINDIR)/platter-img'
	@for section in 1 3 7; do \
		install -d '$(DESTDIR)$(MANDIR)'/man$$section && \
		install -m 644 $(BUILD)/manual/man/*.$$section '$(DESTDIR)$(MANDIR)'/man$$section/ || exit 1; \
	done
	install -d '$(DESTDIR)$(SUPPDIR)' '$(DESTDIR)$(DOCDIR)/html' '$(DESTDIR)$(DOCDIR)/examples'
	install -m 644 packaging/platter.supp '$(DESTDIR)$(SUPPDIR)/platter.supp'
	install -m 644 $(BUILD)/manual/html/* '$(DESTDIR)$(DOCDIR)/html/'
	install -m 644 $(EXAMPLES) '$(DESTDIR)$(DOCDIR)/examples/'

uninstall: man
	rm -f '$(DESTDIR)$(INCLUDEDIR)/platter.h' '$(DESTDIR)$(INCLUDEDIR)/platter.hpp' '$(DESTDIR)$(LIBDIR)/libplatter.a' \
		'$(DESTDIR)$(LIBDIR)/$(REAL)' '$(DESTDIR)$(LIBDIR)/$(SONAME)' \
		'$(DESTDIR)$(LIBDIR)/libplatter.so' '$(DESTDIR)$(LIBDIR)/pkgconfig/platter.pc' \
		'$(DESTDIR)$(BINDIR)/platter-img' '$(DESTDIR)$(BASH_COMPLETIONS)/platter-img' \
		'$(DESTDIR)$(ZSH_COMPLETIONS)/_platter-img' '$(DESTDIR)$(FISH_COMPLETIONS)/platter-img.fish' \
		'$(DESTDIR)$(SUPPDIR)/platter.supp' '$(DESTDIR)$(CMAKEDIR)/PlatterConfig.cmake' '$(DESTDIR)$(CMAKEDIR)/PlatterConfigVersion.cmake'
	@! [ -d '$(DESTDIR)$(CMAKEDIR)' ] || rmdir '$(DESTDIR)$(CMAKEDIR)'
	@for page in $(BUILD)/manual/man/*; do \
		rm -f '$(DESTDIR)$(MANDIR)'/man$${page##*.}/$${page##*/} || exit 1; \
	done
	@for page in $(BUILD)/manual/html/*; do rm -f '$(DESTDIR)$(DOCDIR)/html'/$${page##*/} || exit 1; done
	@for file in $(EXAMPLES); do rm -f '$(DESTDIR)$(DOCDIR)/examples'/$${file##*/} || exit 1; done

# A copy is built, which leaves the source tree as it is. PIP_FLAGS=--no-build-isolation needs no network where
# setuptools and cffi are installed.
python: python-source
	$(PYTHON) -m pip wheel --disable-pip-version-check --no-deps $(PIP_FLAGS) -w $(BUILD)/python $(BUILD)/python/source

# What is published beside the wheel.
sdist: python-source
	cd $(BUILD)/python/source && $(PYTHON) setup.py -q sdist -d ..

python-source:
	rm -rf $(BUILD)/python
	mkdir -p $(BUILD)/python
	cp -R bindings/python $(BUILD)/python/source
	cp include/platter.h $(BUILD)/python/source/platter/platter.h
	cp LICENSE-MIT LICENSE-APACHE $(BUILD)/python/source

dist:
	sh packaging/dist.sh $(VERSION) $(BUILD)

clean:
	$(CARGO) clean
	rm -rf $(BUILD)

FORCE:

.PHONY: all rust man html completions python python-source sdist dist check crash interop packages network fuzz demo bench header header-check install uninstall clean FORCE
