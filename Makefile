# SPDX-License-Identifier: LGPL-2.1-or-later
#
# "make help" lists the targets. CC, CFLAGS, LDFLAGS and the like may come from
# the environment or the command line: what the project needs is added to them.

PREFIX     ?= /usr/local
BINDIR     ?= $(PREFIX)/bin
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR     ?= $(PREFIX)/share/man
# journalctl reads /usr/lib/systemd/catalog and /usr/local/lib/systemd/catalog.
CATALOGDIR ?= $(PREFIX)/lib/systemd/catalog
BASHCOMPDIR ?= $(PREFIX)/share/bash-completion/completions
UNITDIR    ?= $(PREFIX)/lib/systemd/system
# Where management software looks for servers of vhost-user.
VHOSTUSERDIR ?= $(PREFIX)/share/qemu/vhost-user
CFLAGS     ?= -O2 -g
INSTALL    ?= install
NM         ?= nm
OBJCOPY    ?= objcopy
PKG_CONFIG ?= pkg-config
BUILD       = build

# All processors, unless the caller has chosen.
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc)
endif
MAKEFLAGS += --no-print-directory

# Short lines, unless V=1.
Q   = $(if $(filter-out 0,$(V)),,@)
say = $(if $(Q),@printf '  %-5s %s\n' $(1) $(2))

comma := ,
VERSION := $(shell sed -n 's/^.define KTVBLK_VERSION "\(.*\)"/\1/p' include/ktvblk.h)
SONAME  := libktvblk.so.$(firstword $(subst ., ,$(VERSION)))

# pkg-config is asked once, and only when first needed: "make deps" installs it.
ask = $(eval $(1) := $(shell $(PKG_CONFIG) $(2)))$($(1))
SYSTEMD_CFLAGS = $(call ask,SYSTEMD_CFLAGS,--cflags libsystemd)
SYSTEMD_LIBS   = $(call ask,SYSTEMD_LIBS,--libs libsystemd)
FUSE_CFLAGS    = $(call ask,FUSE_CFLAGS,--cflags fuse3)
FUSE_LIBS      = $(call ask,FUSE_LIBS,--libs fuse3)
URING_CFLAGS   = $(call ask,URING_CFLAGS,--cflags liburing)
URING_LIBS     = $(call ask,URING_LIBS,--libs liburing)
# What the library's own objects want.
LIB_CFLAGS     = $(SYSTEMD_CFLAGS) $(URING_CFLAGS)
LIB_LIBS       = $(SYSTEMD_LIBS) $(URING_LIBS)
NBD_CFLAGS     = $(call ask,NBD_CFLAGS,--cflags libnbd)
NBD_LIBS       = $(call ask,NBD_LIBS,--libs libnbd)
CHECK_CFLAGS   = $(call ask,CHECK_CFLAGS,--cflags check)
CHECK_LIBS     = $(call ask,CHECK_LIBS,--libs check)

WARN = -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
       -Wconversion $(if $(filter 1,$(WERROR)),-Werror) \
       -Werror=int-conversion -Werror=incompatible-pointer-types \
       -Werror=implicit-function-declaration
# 64 bits on any machine: util.h sees to it.
OUR_CPPFLAGS = -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -D_TIME_BITS=64 -Iinclude
OUR_CFLAGS   = -std=gnu11 -fPIC -fvisibility=hidden -pthread $(WARN) $(SANITIZE)
COMPILE = $(CC) $(OUR_CPPFLAGS) $(CPPFLAGS) $(OUR_CFLAGS) $(CFLAGS) $(NO_LTO)
LINK     = $(CC) -pthread $(SANITIZE) $(CFLAGS) $(LDFLAGS)
# Position independent whatever the compiler's default: -fPIC objects serve both.
LINK_PIE = $(LINK) -fPIE -pie

# nodelete: a thread stuck in storage must not have its code unmapped.
SHARED_LDFLAGS = -shared -Wl,-soname,$(SONAME) \
		 -Wl,--version-script=src/lib/libktvblk.map \
		 -Wl,-z,defs -Wl,-z,now -Wl,-z,relro -Wl,-z,nodelete

# Sorted, as the order in which a wildcard finds them is that of the locale.
objects = $(patsubst %.c,$(BUILD)/%.o,$(sort $(1)))
LIB_OBJ  := $(call objects,$(wildcard src/lib/*.c src/lib/vhost-user/*.c))
# The static library's and the tests', where link-time optimisation is wanted.
PLAIN_OBJ := $(if $(filter -flto%,$(CFLAGS) $(CPPFLAGS)),$(LIB_OBJ:$(BUILD)/%=$(BUILD)/plain/%),$(LIB_OBJ))
DEMO_OBJ := $(call objects,$(wildcard src/demo/*.c))
BOTH_OBJ := $(call objects,$(wildcard src/tools/*.c))
TOOL_OBJ := $(call objects,$(wildcard src/tools/wedged/*.c)) $(BOTH_OBJ)
# With NBD where libnbd is there.
HAS_NBD  := $(shell $(PKG_CONFIG) --exists libnbd 2>/dev/null && echo yes)
SERVE_OBJ := $(call objects,$(wildcard src/tools/serve/*.c) \
	$(if $(HAS_NBD),src/demo/nbd/nbd.c)) $(BOTH_OBJ)
UNIT_OBJ := $(call objects,$(wildcard tests/unit/test-*.c))
FUZZ_OBJ := $(call objects,$(wildcard tests/fuzz/fuzz-*.c))
SYSTEM_OBJ := $(call objects,$(wildcard tests/system/*.c))
VMM_OBJ  := $(call objects,$(wildcard src/demo/vmm/*.c))
NBD_OBJ  := $(call objects,$(wildcard src/demo/nbd/*.c) \
	$(patsubst %,src/demo/%.c,driver event guest say))
GUEST_OBJ := $(call objects,$(addprefix tests/guest/,overlay.c control.c gate.c \
	ring3.c tsc-khz.c))
BENCH_OBJ := $(call objects,$(wildcard tests/bench/*.c))
PEERS_OBJ := $(call objects,$(wildcard tests/bench/peers/*.c) \
	$(addprefix tests/bench/,case.c driver.c figures.c measure.c store.c))
HELP_OBJ := $(call objects,$(filter-out tests/unit/test-% %/tsan-clockjoin.c,\
	$(wildcard tests/unit/*.c)))

SHARED   := $(BUILD)/libktvblk.so.$(VERSION)
LINKS    := $(BUILD)/$(SONAME) $(BUILD)/libktvblk.so
STATIC   := $(BUILD)/libktvblk.a
PC       := $(BUILD)/libktvblk.pc
PROGRAMS := $(BUILD)/ktvblk-demo $(BUILD)/ktvblk-wedged $(BUILD)/ktvblk-serve
MAN      := $(wildcard src/man/man?/*)
# The small VMM is for x86-64 only.
ifneq ($(filter x86_64%,$(shell $(CC) -dumpmachine 2>/dev/null || uname -m)),)
PROGRAMS += $(BUILD)/ktvblk-vmm
else
MAN      := $(filter-out %/ktvblk-vmm.1,$(MAN))
endif
# An example that is not installed, where libnbd is there.
EXAMPLES := $(if $(HAS_NBD),$(BUILD)/ktvblk-nbd)
CATALOG  := $(wildcard src/catalog/*.catalog)
# They name the program's place.
UNITS    := $(patsubst src/units/%.in,$(BUILD)/units/%,$(wildcard src/units/*.in))
BASHCOMP  = $(addprefix src/completion/,$(notdir $(PROGRAMS)))
UNIT     := $(UNIT_OBJ:.o=)
FUZZ     := $(FUZZ_OBJ:.o=)

all: $(LINKS) $(STATIC) $(PC) $(PROGRAMS) $(UNITS) $(EXAMPLES)	## the libraries and programs (default)

# Everything compiled waits for this file. It changes when the flags do; install
# takes what is there. "make deps check" has its packages before it compiles.
$(BUILD)/flags: export WANT = $(COMPILE) $(LDFLAGS)
$(BUILD)/flags: $(if $(filter install,$(MAKECMDGOALS)),,FORCE) \
		| $(filter deps deps-qemu deps-ci,$(MAKECMDGOALS))
	@mkdir -p $(@D)
	@echo "$$WANT" | cmp -s - $@ || echo "$$WANT" >$@

$(BUILD)/%.o: %.c $(BUILD)/flags Makefile
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -MMD -MP -c -o $@ $<

$(BUILD)/plain/%.o: %.c $(BUILD)/flags Makefile
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -MMD -MP -c -o $@ $<

$(sort $(LIB_OBJ) $(PLAIN_OBJ)): private OUR_CPPFLAGS += -iquote src/lib $(LIB_CFLAGS)
$(TOOL_OBJ): private OUR_CPPFLAGS += $(SYSTEMD_CFLAGS)
# A linker that optimises across files knows nothing of --wrap, nor of "ld -r".
$(BUILD)/plain/%.o $(BUILD)/tests/%.o: private NO_LTO = -fno-lto
$(BUILD)/tests/%.o: private OUR_CPPFLAGS += -iquote src/lib $(CHECK_CFLAGS) $(LIB_CFLAGS)

$(SHARED): $(LIB_OBJ) src/lib/libktvblk.map
	$(call say,LD,$@)
	$(Q)$(LINK) $(SHARED_LDFLAGS) -o $@ $(LIB_OBJ) $(LIB_LIBS)

$(LINKS): $(SHARED)
	@ln -sf $(<F) $@

# One object, so that what is hidden can be made local.
$(STATIC): $(PLAIN_OBJ)
	$(call say,AR,$@)
	$(Q)$(CC) -r -nostdlib -o $(BUILD)/libktvblk.o $^
	$(Q)$(OBJCOPY) --localize-hidden $(BUILD)/libktvblk.o
	$(Q)rm -f $@
	$(Q)$(AR) rcs $@ $(BUILD)/libktvblk.o

# Made again whenever asked for: install may name other directories.
$(PC): src/lib/libktvblk.pc.in FORCE
	@mkdir -p $(@D)
	@sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' \
	     -e 's|@LIBDIR@|$(LIBDIR:$(PREFIX)/%=$${prefix}/%)|' \
	     -e 's|@INCLUDEDIR@|$(INCLUDEDIR:$(PREFIX)/%=$${prefix}/%)|' $< >$@

$(BUILD)/ktvblk-demo: $(DEMO_OBJ) $(LINKS)
	$(call say,LD,$@)
	$(Q)$(LINK_PIE) -o $@ $(DEMO_OBJ) -L$(BUILD) -lktvblk

$(BUILD)/ktvblk-wedged: $(TOOL_OBJ)
	$(call say,LD,$@)
	$(Q)$(LINK_PIE) -o $@ $(TOOL_OBJ) $(SYSTEMD_LIBS)

$(BUILD)/src/tools/serve/%.o: private OUR_CPPFLAGS += $(SYSTEMD_CFLAGS) \
	$(if $(HAS_NBD),-DSERVE_NBD)
$(BUILD)/ktvblk-serve: $(SERVE_OBJ) $(LINKS)
	$(call say,LD,$@)
	$(Q)$(LINK_PIE) -o $@ $(SERVE_OBJ) -L$(BUILD) -lktvblk $(SYSTEMD_LIBS) \
		$(if $(HAS_NBD),$(NBD_LIBS))

# Made again whenever asked for, as the pkg-config file is.
$(UNITS): $(BUILD)/units/%: src/units/%.in FORCE
	@mkdir -p $(@D)
	@sed 's|@BINDIR@|$(BINDIR)|' $< >$@

# Unit tests see the library's own objects, whose calls may be wrapped.
WRAPPED = $$(tests/unit/wrap.sh "$(NM)" "$(OBJCOPY)" $@ $(@:$(BUILD)/%=%) $^)
$(UNIT): %: %.o $(HELP_OBJ) $(PLAIN_OBJ) $(TEST_OBJ)
	$(call say,LD,$@)
	$(Q)$(LINK_PIE) $(TEST_LDFLAGS) -o $@ $(WRAPPED) $(CHECK_LIBS) $(LIB_LIBS)

# Has the shared library by dlopen().
DLOPEN = $(BUILD)/tests/abi/test-dlopen
DLOPEN_OBJ = $(addprefix $(BUILD)/,$(patsubst %,tests/abi/%.o,test-dlopen loaded) \
	$(patsubst %,src/demo/%.o,driver event guest hang image machine say))
$(BUILD)/tests/abi/%.o: private OUR_CPPFLAGS += -iquote tests/unit -iquote src/demo
$(DLOPEN): $(DLOPEN_OBJ) $(BUILD)/tests/unit/harness.o $(LINKS)
	$(call say,LD,$@)
	$(Q)$(LINK_PIE) -o $@ $(filter %.o,$^) $(CHECK_LIBS)

# A fuzz target with a main() that replays its corpus; or with libFuzzer's.
FUZZ_MAIN = $(BUILD)/tests/fuzz/replay.o
FUZZ_HELP_OBJ := $(call objects,$(addprefix tests/fuzz/,null-store.c \
	reach.c store.c workers.c))
$(addprefix $(BUILD)/tests/fuzz/fuzz-,device restore): $(BUILD)/tests/fuzz/store.o $(BUILD)/tests/fuzz/workers.o
$(addprefix $(BUILD)/tests/fuzz/fuzz-,restore vhost-user): $(BUILD)/tests/fuzz/null-store.o
$(FUZZ): %: %.o $(FUZZ_MAIN) $(BUILD)/tests/fuzz/reach.o $(PLAIN_OBJ) $(TEST_OBJ)
	$(call say,LD,$@)
	$(Q)$(LINK_PIE) $(TEST_LDFLAGS) -o $@ $(WRAPPED) $(LIB_LIBS)

# Tests with a real journal and real storage. They run as programs of their own
# with the unit tests' helpers.
SYS    = $(BUILD)/tests/system
system = $(call objects,$(addprefix tests/system/,$(1)))
$(SYSTEM_OBJ): private OUR_CPPFLAGS += -iquote tests/unit
$(SYS)/slowfs.o: private OUR_CPPFLAGS += -DFUSE_USE_VERSION=312 $(FUSE_CFLAGS)
$(SYS)/slowfs: $(call system,slowfs.c slowfs-shared.c)
	$(call say,LD,$@)
	$(Q)$(LINK_PIE) -o $@ $^ $(FUSE_LIBS)
$(SYS)/slowfs-hold: $(call system,slowfs-hold.c slowfs-shared.c)
	$(call say,LD,$@)
	$(Q)$(LINK_PIE) -o $@ $^
$(SYS)/wedge: $(call system,wedge.c wedge-record.c wedge-depth.c wedge-more.c wedge-race.c \
	wedge-durable.c wedge-lock.c wedge-front.c way.c disk.c slowfs-shared.c runner.c)
$(SYS)/journal: $(call system,journal.c journal-daemon.c journal-device.c \
	journal-guest.c journal-front.c journal-steps.c journal-faults.c journald.c runner.c)
$(SYS)/wedge $(SYS)/journal: $(HELP_OBJ) $(PLAIN_OBJ)
	$(call say,LD,$@)
	$(Q)$(LINK_PIE) -o $@ $(WRAPPED) $(CHECK_LIBS) $(LIB_LIBS)

# What a real front end has to connect to.
$(SYS)/vu-server: $(call system,vu-server.c) $(LINKS)
	$(call say,LD,$@)
	$(Q)$(LINK_PIE) -o $@ $(filter %.o,$^) -L$(BUILD) -lktvblk

SOAK = $(BUILD)/tests/soak/soak
SOAK_OBJ := $(call objects,$(wildcard tests/soak/*.c))
$(SOAK_OBJ): private OUR_CPPFLAGS += -iquote tests/unit
$(SOAK): $(SOAK_OBJ) $(HELP_OBJ) $(PLAIN_OBJ) $(TEST_OBJ)
	$(call say,LD,$@)
	$(Q)$(LINK_PIE) $(TEST_LDFLAGS) -o $@ $(WRAPPED) $(CHECK_LIBS) $(LIB_LIBS)

# Real guests, x86-64 only: an overlay for stock QEMU, and a small VMM.
GUEST = $(BUILD)/tests/guest
$(GUEST)/%.o: private OUR_CPPFLAGS += -iquote src/demo

$(GUEST)/overlay.so: $(addprefix $(GUEST)/,overlay.o control.o gate.o) \
		$(BUILD)/src/demo/vmm/disk.o $(LINKS)
	$(call say,LD,$@)
	$(Q)$(LINK) -shared -o $@ $(filter %.o,$^) -L$(BUILD) -lktvblk

$(GUEST)/ring3: $(addprefix $(GUEST)/,ring3.o gate.o) \
		$(BUILD)/src/demo/vmm/disk.o $(LINKS)
	$(call say,LD,$@)
	$(Q)$(LINK_PIE) -o $@ $(filter %.o,$^) -L$(BUILD) -lktvblk

# Freestanding, and none of the flags of the hosted programs.
$(GUEST)/ring3-guest: $(addprefix tests/guest/,ring3-guest.c ring3-start.S ring3.h) Makefile
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 -O2 $(WARN) -ffreestanding -nostdlib -static -fno-pic \
		-mno-red-zone -mgeneral-regs-only -fno-stack-protector \
		-fcf-protection=none \
		-Wl,-Ttext=0x200000,-e,guest_start,--build-id=none -o $@.elf \
		tests/guest/ring3-start.S tests/guest/ring3-guest.c
	$(Q)$(OBJCOPY) -O binary $@.elf $@

$(GUEST)/tsc-khz: $(GUEST)/tsc-khz.o
	$(call say,LD,$@)
	$(Q)$(LINK_PIE) -o $@ $^

# Stands in front of libc, to count: see tests/bench/count.h.
BENCH_BIN = $(BUILD)/tests/bench/bench
$(BENCH_OBJ): private OUR_CPPFLAGS += $(URING_CFLAGS)
$(BENCH_BIN): $(BENCH_OBJ)
	$(call say,LD,$@)
	$(Q)$(LINK_PIE) -rdynamic -o $@ $^ $(URING_LIBS)

# A front end of other programs, with the unit tests' helpers.
PEERS_BIN = $(BUILD)/tests/bench/peers/peers
$(BUILD)/tests/bench/peers/%.o: private OUR_CPPFLAGS += -iquote tests/unit
$(PEERS_BIN): $(PEERS_OBJ) $(HELP_OBJ) $(PLAIN_OBJ)
	$(call say,LD,$@)
	$(Q)$(LINK_PIE) -o $@ $(WRAPPED) $(CHECK_LIBS) $(LIB_LIBS)

$(BUILD)/ktvblk-vmm: $(VMM_OBJ) $(LINKS)
	$(call say,LD,$@)
	$(Q)$(LINK_PIE) -o $@ $(VMM_OBJ) -L$(BUILD) -lktvblk

$(BUILD)/src/demo/nbd/%.o: private OUR_CPPFLAGS += $(NBD_CFLAGS)
$(BUILD)/ktvblk-nbd: $(NBD_OBJ) $(LINKS)
	$(call say,LD,$@)
	$(Q)$(LINK_PIE) -o $@ $(NBD_OBJ) -L$(BUILD) -lktvblk $(NBD_LIBS)

check: $(UNIT) $(FUZZ) $(DLOPEN)	## run the unit tests and replay the fuzzers' corpus
	@tests/run.sh $(UNIT) $(FUZZ) $(DLOPEN)

tests: $(UNIT) $(FUZZ) $(DLOPEN)	## build the unit tests, and do not run them

lint-calls: $(PLAIN_OBJ)	## is each call that can fail made to fail?
	@tests/unit/calls.sh "$(CC)" $(NM) $(PLAIN_OBJ)

lint-tests: lint-calls	## ... hazards without a test, records of the wrong type
	@tests/hazards.sh
	@tests/unit/typed.sh $(CC) $(OUR_CPPFLAGS) $(WARN)

check-asan:	## ... with the address and undefined behaviour sanitizers
	@CK_TIMEOUT_MULTIPLIER=4 TEST_TIMEOUT=400 UBSAN_OPTIONS=print_stacktrace=1 \
	$(MAKE) check BUILD=$(BUILD)/asan SANITIZE="-fsanitize=address,undefined \
		-fno-sanitize-recover=undefined -fno-omit-frame-pointer"

# setarch: ThreadSanitizer does not start where addresses are very random; some
# containers do not let it help. The shared library's joins cannot be wrapped.
check-tsan:	## ... with the thread sanitizer
	@CK_FORK=no TEST_TIMEOUT=600 \
	TEST_WRAPPER="$$(setarch -R true 2>/dev/null && echo setarch -R)" \
	$(MAKE) check BUILD=$(BUILD)/tsan SANITIZE=-fsanitize=thread DLOPEN= \
		TEST_LDFLAGS=-Wl,--wrap=pthread_clockjoin_np \
		TEST_OBJ=$(BUILD)/tsan/tests/unit/tsan-clockjoin.o

check-valgrind:	## ... with valgrind's memcheck
	@CK_FORK=no TEST_TIMEOUT=900 TESTS_RUN_SLOWLY=1 TESTS_ONE_THREAD=1 \
	TEST_WRAPPER="valgrind -q --error-exitcode=99 --leak-check=full \
		--errors-for-leak-kinds=definite --fair-sched=try" \
	$(MAKE) check BUILD=$(BUILD)/valgrind

# What it finds is kept in $(BUILD)/fuzz; what reaches something new may join the corpus.
SECONDS = 60
fuzz:	## look for hostile guests with libFuzzer (SECONDS=60 for each target)
	@$(MAKE) run-fuzz CC=clang BUILD=$(BUILD)/fuzz FUZZ_MAIN= \
		TEST_LDFLAGS=-fsanitize=fuzzer SANITIZE="-fsanitize=address,undefined \
		-fsanitize=fuzzer-no-link -fno-sanitize-recover=undefined"

run-fuzz: $(FUZZ)
	@set -e; for f in $(FUZZ); do n=$${f##*/}; mkdir -p $$f.found; \
		echo "  FUZZ  $$n"; $$f -max_total_time=$(SECONDS) -max_len=4096 \
		-verbosity=0 -print_final_stats=1 -artifact_prefix=$$f.found/ \
		$$f.found tests/fuzz/corpus/$$n >$$f.log 2>&1 || \
		{ cat $$f.log; exit 1; }; \
		sed -n "s/^stat::number_of_executed_units: /note: $$n executed /p" $$f.log; done

coverage:	## which lines of src/lib the tests reach
	@rm -rf $(BUILD)/coverage
	@CK_TIMEOUT_MULTIPLIER=4 TEST_TIMEOUT=400 TESTS_RUN_SLOWLY=1 \
	$(MAKE) run-coverage CC=gcc BUILD=$(BUILD)/coverage CFLAGS=-O0 SANITIZE=--coverage

# What is reached by luck counts if it is in one of three runs.
run-coverage: check
	@for more in 1 2; do tests/coverage.sh $(BUILD) && exit; $(MAKE) check || exit; \
		done; tests/coverage.sh $(BUILD)

check-headers:	## compile each public header alone as C99, C11 and C++17
	@for h in include/*.h; do for l in c:c99 c:c11 c++:c++17; do \
		c="$(CC)"; [ $${l%:*} = c ] || c="$(CXX)"; \
		printf '  %-5s %s %s\n' HDR $$h $${l#*:}; \
		for p in '' -pedantic; do \
		printf '#include "%s"\nextern int not_empty;\n' $$h | \
		$$c -x $${l%:*} -std=$${l#*:} $$p -Wall -Wextra -Werror \
			-I. -Iinclude -fsyntax-only - || exit 1; \
	done; done; done

# What nm says of the libraries against what the map says.
check-symbols: $(SHARED) $(STATIC)	## compare the exported symbols with the map
	@sed 's|/\*.*\*/||' src/lib/libktvblk.map | grep -o 'ktvblk_[a-z0-9_]*' | \
		sort >$(BUILD)/symbols.map
	@$(NM) -D --defined-only -P $(SHARED) | \
		sed '/ A /d; s/[@ ].*//' | sort >$(BUILD)/symbols.shared
	@$(NM) -g --defined-only -P $(STATIC) | \
		sed '/:$$/d; s/ .*//' | sort >$(BUILD)/symbols.static
	@diff -u $(BUILD)/symbols.map $(BUILD)/symbols.shared
	@diff -u $(BUILD)/symbols.map $(BUILD)/symbols.static
	@echo "$$(wc -l <$(BUILD)/symbols.map) symbols, as in the map"

check-lto:	## the libraries with link-time optimisation, fat objects and others
	@for f in -flto '-flto -ffat-lto-objects'; do \
		$(MAKE) check-symbols BUILD=$(BUILD)/lto CFLAGS="-O2 -g $$f" && \
		$(MAKE) $(BUILD)/lto/libktvblk.a $(BUILD)/lto/libktvblk.pc \
			BUILD=$(BUILD)/lto CFLAGS="-O2 -g $$f" && \
		$(CC) -O2 $$f -Iinclude -o $(BUILD)/lto/static tests/consumer/consumer.c \
			$(BUILD)/lto/libktvblk.a $(LIB_LIBS) -pthread && \
		$(BUILD)/lto/static || exit 1; done
	@$(MAKE) lint-calls $(BUILD)/lto/tests/unit/test-faults BUILD=$(BUILD)/lto \
		CFLAGS='-O2 -g -flto'
	@tests/run.sh $(BUILD)/lto/tests/unit/test-faults

abi-check: $(SHARED)	## see that programs built for the committed ABI still run
	@tests/abi/abi.sh check $(SHARED)

check-abi-program: $(LINKS)	## run a program built for 1.0, and without 64-bit off_t and time_t
	@tests/abi/program.sh $(BUILD) "$(CC)"

abi-baseline: $(SHARED)	## commit to the ABI as it is now
	@tests/abi/abi.sh baseline $(SHARED)

demo: $(BUILD)/ktvblk-demo	## build and run the tour (DEMO_ARGS=...)
	@LD_LIBRARY_PATH=$(BUILD) $(BUILD)/ktvblk-demo $(DEMO_ARGS)

deps-qemu:	## ... and those of demo-qemu
	@.ci/deps build qemu

demo-qemu: $(BUILD)/ktvblk-serve	## QEMU with a disk whose storage hangs
	@src/demo/qemu/demo.sh $(BUILD)

check-journal: $(SYS)/journal	## every record, in a real journal
	@tests/system/journal.sh $(SYS) $(JOURNAL_ARGS)

check-nbd: $(EXAMPLES)	## the example with an NBD server, which is killed and stopped
	@BUILD=$(BUILD) tests/system/nbd.sh

check-lock: $(LINKS) $(BUILD)/ktvblk-serve	## one image, one writer: against qemu-img and qemu-storage-daemon
	@BUILD=$(BUILD) tests/system/image-lock.sh

check-serve: all $(SYS)/slowfs $(SYS)/slowfs-hold	## ktvblk-serve: options, locks, signals, systemd, NBD
	@BUILD=$(BUILD) tests/system/serve.sh
	@BUILD=$(BUILD) tests/system/units.sh

check-wedge: $(SYS)/wedge $(SYS)/slowfs	## storage that blocks in the kernel (as root)
	@tests/system/wedge.sh $(SYS) $(WEDGE_ARGS)

# SECONDS and SEED; with the sanitizers too: BUILD=... SANITIZE=...
soak: $(SOAK)	## 16 devices at random, every byte checked (SECONDS=60, SEED=n)
	@$(SOAK) $(SECONDS) $(SEED)

guest-parts: $(addprefix $(GUEST)/,overlay.so tsc-khz ring3 ring3-guest) \
		$(BUILD)/ktvblk-vmm $(BUILD)/ktvblk-wedged
check-guest: guest-parts	## real guests (GUESTS="cloud amd64 queues space nested nested-amd64 ring3", GUEST_MATRIX=full)
	@tests/guest/run.sh $(BUILD) $(GUESTS)

# What firmware is to boot. The EFI program is of clang and lld, which know the
# format; where they are not there its cases are skipped.
FIRMWARE = $(BUILD)/tests/firmware
EFI_CC   = clang --target=aarch64-unknown-windows

$(FIRMWARE)/boot.bin: tests/firmware/boot.S
	$(call say,AS,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) -m32 -c -o $(@:.bin=.o) $<
	$(Q)$(LD) -m elf_i386 -Ttext 0x7c00 -e start --oformat binary -o $@ $(@:.bin=.o)

# Half of what makes it large.
$(FIRMWARE)/ballast:
	@mkdir -p $(@D)
	$(Q)head -c 2M /dev/urandom >$@

$(FIRMWARE)/program.efi: tests/firmware/efi.c $(FIRMWARE)/ballast
	$(call say,EFI,$<)
	$(Q)$(EFI_CC) -std=gnu11 -O2 $(WARN) -ffreestanding -fshort-wchar \
		-fno-stack-protector -nostdlib -DBALLAST='"$(FIRMWARE)/ballast"' \
		-fuse-ld=lld -Wl,-entry:efi_main -Wl,-subsystem:efi_application -o $@ $<

firmware-parts: $(GUEST)/overlay.so $(FIRMWARE)/boot.bin \
		$(if $(and $(shell command -v clang),$(shell command -v lld-link)),$(FIRMWARE)/program.efi)
check-firmware: firmware-parts	## firmware as guests (FIRMWARES="seabios edk2 uboot ...")
	@tests/firmware/run.sh $(BUILD) $(FIRMWARES)

vhost-user-parts: firmware-parts $(BUILD)/ktvblk-serve $(GUEST)/tsc-khz \
		$(SYS)/slowfs $(SYS)/slowfs-hold
check-vhost-user: vhost-user-parts	## real clients of ktvblk-serve (CLIENTS="q35 microvm hang killed firmware uml ...")
	@tests/vhost-user/run.sh $(BUILD) $(CLIENTS)

bench: $(BENCH_BIN) $(LINKS)	## what a request costs (BENCH=full, BENCH_AGAINST=libktvblk.so, BENCH_ARGS=...)
	@tests/bench/run.sh $(BENCH_BIN) $(SHARED) $(BUILD)/bench $(BENCH_ARGS)

bench-peers: $(PEERS_BIN) $(BUILD)/ktvblk-serve	## ktvblk-serve and qemu-storage-daemon, by one client
	@mkdir -p $(BUILD)/bench
	@PATH="$(abspath $(BUILD)):$$PATH" LD_LIBRARY_PATH="$(abspath $(BUILD))" \
		$(PEERS_BIN) --dir "$${BENCH_DIR:-$(BUILD)/bench}" $(BENCH_ARGS)

bench-instructions: $(BENCH_BIN) $(LINKS)	## ... in instructions, by callgrind
	@tests/bench/instructions.sh show $(BENCH_BIN) $(SHARED) $(BUILD)/bench $(BENCH_ARGS)

bench-check: $(BENCH_BIN) $(LINKS)	## ... what of that must hold on any machine
	@mkdir -p $(BUILD)/bench
	@rc=0; $(BENCH_BIN) --check --library $(SHARED) --dir $(BUILD)/bench --out $(BUILD)/bench/check || rc=1; \
	tests/bench/instructions.sh check $(BENCH_BIN) $(SHARED) $(BUILD)/bench || rc=1; \
	exit $$rc

bench-baseline: $(BENCH_BIN) $(LINKS)	## commit to the instructions as they are now
	@tests/bench/instructions.sh baseline $(BENCH_BIN) $(SHARED) $(BUILD)/bench

check-docs: all	## manual pages, message catalogue, ktvblk-wedged, jails
	@for t in man catalog wedged wedged-follow wedged-journals one-liners jail vmm readme; do \
		BUILD=$(BUILD) tests/system/$$t.sh || exit 1; done

check-demo: $(BUILD)/ktvblk-demo	## the tour with each option, user and journal
	@tests/system/demo.sh $(BUILD)/ktvblk-demo

install: all	## install below $(DESTDIR)$(PREFIX)
	$(INSTALL) -d $(addprefix $(DESTDIR),$(BINDIR) $(LIBDIR)/pkgconfig $(INCLUDEDIR))
	$(INSTALL) -m 644 include/*.h $(DESTDIR)$(INCLUDEDIR)
	$(INSTALL) -m 644 $(SHARED) $(STATIC) $(DESTDIR)$(LIBDIR)
	cp -d $(LINKS) $(DESTDIR)$(LIBDIR)
	$(INSTALL) -m 644 $(PC) $(DESTDIR)$(LIBDIR)/pkgconfig
	$(INSTALL) $(PROGRAMS) $(DESTDIR)$(BINDIR)
	$(INSTALL) -d $(addprefix $(DESTDIR)$(MANDIR)/,man1 man3 man7) $(DESTDIR)$(CATALOGDIR)
	for m in $(MAN:src/man/%=%); do cp -d src/man/$$m $(DESTDIR)$(MANDIR)/$$m; done
	$(INSTALL) -m 644 $(CATALOG) $(DESTDIR)$(CATALOGDIR)
	$(INSTALL) -d $(DESTDIR)$(BASHCOMPDIR)
	cp -d --preserve=links,timestamps $(BASHCOMP) $(DESTDIR)$(BASHCOMPDIR)
	$(INSTALL) -d $(DESTDIR)$(UNITDIR) $(DESTDIR)$(VHOSTUSERDIR)
	$(INSTALL) -m 644 $(filter-out %.json,$(UNITS)) $(DESTDIR)$(UNITDIR)
	$(INSTALL) -m 644 $(filter %.json,$(UNITS)) $(DESTDIR)$(VHOSTUSERDIR)

uninstall:	## remove what install put there
	rm -f $(addprefix $(DESTDIR)$(INCLUDEDIR)/,$(notdir $(wildcard include/*.h)))
	rm -f $(addprefix $(DESTDIR)$(LIBDIR)/,$(notdir $(SHARED) $(LINKS) $(STATIC)))
	rm -f $(DESTDIR)$(LIBDIR)/pkgconfig/libktvblk.pc
	rm -f $(addprefix $(DESTDIR)$(BINDIR)/,$(notdir $(PROGRAMS)))
	rm -f $(patsubst src/man/%,$(DESTDIR)$(MANDIR)/%,$(MAN))
	rm -f $(addprefix $(DESTDIR)$(CATALOGDIR)/,$(notdir $(CATALOG)))
	rm -f $(addprefix $(DESTDIR)$(BASHCOMPDIR)/,$(notdir $(BASHCOMP)))
	rm -f $(addprefix $(DESTDIR)$(UNITDIR)/,$(notdir $(filter-out %.json,$(UNITS))))
	rm -f $(addprefix $(DESTDIR)$(VHOSTUSERDIR)/,$(notdir $(filter %.json,$(UNITS))))

deps:	## install the Debian packages to build and check with (as root)
	@.ci/deps build check

deps-ci:	## ... and those of the CI run
	@.ci/deps build check ci

SOURCES = $$(find src include tests -name '*.[ch]')
format:	## lay out the sources with clang-format
	clang-format -i $(SOURCES)

format-check:	## see that format has nothing to do
	clang-format -n -Werror $(SOURCES)

# The release's tarball, as Debian names it: the same bytes whenever it is made.
DIST = HEAD
DIST_DIR = $(BUILD)
GIT = git -c safe.directory=$(CURDIR)
dist:	## the source of a tag or commit, as one tarball (DIST=HEAD, DIST_DIR=build)
	@mkdir -p $(DIST_DIR)
	@v=$$($(GIT) show $(DIST):include/ktvblk.h | \
		sed -n 's/^.define KTVBLK_VERSION "\(.*\)"/\1/p') && [ "$$v" ] && \
	$(GIT) archive --prefix=libktvblk-$$v/ $(DIST) ':!debian' | xz -T1 \
		>$(DIST_DIR)/libktvblk_$$v.orig.tar.xz && \
	echo "$(DIST_DIR)/libktvblk_$$v.orig.tar.xz"

clean:	## remove build/
	rm -rf $(BUILD)

help:	## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | \
		while IFS='|' read -r t d; do printf '  %-15s %s\n' "$$t" "$$d"; done

FORCE:
.PHONY: all tests bench bench-peers bench-instructions bench-check bench-baseline check check-asan check-tsan check-valgrind check-headers lint-calls lint-tests \
	check-symbols check-abi-program check-lto abi-check abi-baseline check-journal check-wedge soak guest-parts check-guest firmware-parts check-firmware vhost-user-parts check-vhost-user check-docs check-demo check-nbd check-lock check-serve coverage run-coverage fuzz run-fuzz demo demo-qemu install uninstall dist deps deps-qemu deps-ci format format-check \
	clean help FORCE
.DELETE_ON_ERROR:
.SECONDARY:

-include $(patsubst %.o,%.d,$(sort $(LIB_OBJ) $(PLAIN_OBJ)) $(DEMO_OBJ) $(TOOL_OBJ) $(SERVE_OBJ) $(SYSTEM_OBJ) $(VMM_OBJ) $(NBD_OBJ) \
	$(GUEST_OBJ) $(BENCH_OBJ) $(PEERS_OBJ) $(DLOPEN_OBJ) $(SOAK_OBJ) $(UNIT_OBJ) $(FUZZ_OBJ) \
	$(FUZZ_MAIN) $(FUZZ_HELP_OBJ) $(HELP_OBJ) $(TEST_OBJ))
