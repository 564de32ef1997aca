# shellcheck shell=bash
# Debian's kernels in virtual machines, under QEMU's software emulation. Sourced:
#
#   cd to the root of the project
#   . tests/kernels/vm.sh
#   vm_choose amd64 || exit                     the architecture; or arm64
#   why=$(vm_missing); [ -z "$why" ] || ...     what cannot be had here, for a visible skip
#   program=$(vm_build test --test live --no-run) cargo's arguments; prints the static programs
#   vm_root "$work/root"                        busybox and an init that runs /run
#   vm_install "$program" "$work/root" NAME
#   write "$work/root/run" and make it executable
#   vm_pack "$work/root" "$work/initrd"
#   kernel=$(vm_kernel 6.1)                     newest of a series, from the cache or the mirror
#   vm_boot "$kernel" "$work/initrd" "$work/6.1" lockdown=confidentiality GREETING=hello
#
# vm_boot returns the exit code of /run, 124 if time ran out, 125 if the guest ended without one
# (it panicked). What /run wrote is in OUT.output, what the kernel wrote in OUT.console. Words of
# the form NAME=value that the kernel does not know become environment variables of /run.

# shellcheck source=script/static
. script/static

# Kernels and what a foreign architecture needs; survives the checkout.
VM_CACHE=${NETSPY_KERNELS:-${XDG_CACHE_HOME:-$HOME/.cache}/netspy/kernels}
# Seconds that a guest may run, its megabytes, its processors and what emulates them.
VM_TIMEOUT=${VM_TIMEOUT:-900}
VM_MEMORY=${VM_MEMORY:-512}
VM_CPUS=${VM_CPUS:-1}
VM_ACCEL=${VM_ACCEL:-tcg,thread=multi}
readonly VM_KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

vm_choose() { # amd64|arm64
    VM_ARCH=$1
    case $1 in
        amd64)
            VM_TARGET=x86_64-unknown-linux-gnu VM_QEMU=qemu-system-x86_64 VM_STRIP='strip'
            VM_MACHINE=(-M q35 -cpu qemu64)
            # The lines of the kernel, of /run, and of its exit code.
            VM_LINES=(ttyS0 ttyS1 ttyS2)
            VM_PACKAGES='qemu-system-x86, seabios, cpio'
            ;;
        arm64)
            VM_TARGET=aarch64-unknown-linux-gnu VM_QEMU=qemu-system-aarch64 VM_STRIP=aarch64-linux-gnu-strip
            VM_MACHINE=(-M virt -cpu cortex-a57)
            # The machine has one line of its own; the others are on cards.
            VM_LINES=(ttyAMA0 ttyS0 ttyS1)
            VM_PACKAGES='qemu-system-arm, cpio, gcc-aarch64-linux-gnu'
            ;;
        *)
            echo "tests/kernels/vm.sh: no architecture '$1' (amd64, arm64)" >&2
            return 2
            ;;
    esac
}

# Prints what is missing here, nothing if everything is there.
vm_missing() {
    local program
    local -a needed=("$VM_QEMU" cpio apt-get apt-cache dpkg)
    [ "$VM_ARCH" = amd64 ] || needed+=(aarch64-linux-gnu-gcc)
    for program in "${needed[@]}"; do
        command -v "$program" >/dev/null && continue
        echo "there is no $program (packages $VM_PACKAGES)"
        return
    done
    [ -d "$(rustc --print target-libdir --target "$VM_TARGET" 2>/dev/null)" ] || {
        echo "this Rust does not compile for $VM_TARGET (rustup target add $VM_TARGET)"
        return
    }
    [ -r $VM_KEYRING ] || echo "there is no $VM_KEYRING (package debian-archive-keyring)"
}

# Where a series is: suite, and the pattern of its package's name.
vm_place() { # series
    case $1 in
        5.10) echo "bullseye-security ^linux-image-5\.10\..*-cloud-$VM_ARCH\$" ;;
        6.1) echo "bookworm-security ^linux-image-6\.1\..*-cloud-$VM_ARCH\$" ;;
        6.12) echo "trixie-security ^linux-image-6\.12\..*-cloud-$VM_ARCH\$" ;;
        # From 6.19 on the kernel itself is in linux-binary.
        7) echo "sid ^linux-binary-7\..*-cloud-$VM_ARCH\$" ;;
        *) return 1 ;;
    esac
}

# Prints the path of the newest kernel of a series; fails where there is none. Delete it from the
# cache to have a newer one.
vm_kernel() { # series
    local directory=$VM_CACHE/$1 suite pattern
    [ "$VM_ARCH" = amd64 ] || directory=$VM_CACHE/$VM_ARCH/$1
    read -r suite pattern < <(vm_place "$1")
    vm_cached "$directory" 'vmlinuz*' "$suite" "$pattern"
}

# A busybox that needs no libraries: this machine's, or Debian's.
vm_busybox() {
    if [ "$VM_ARCH" = amd64 ] && [ -x /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1; then
        echo /bin/busybox
        return
    fi
    vm_cached "$VM_CACHE/$VM_ARCH/busybox" bin/busybox bookworm '^busybox-static$'
}

# Prints a file of a Debian package, which is kept. Two runs at once wait for each other.
vm_cached() { # directory file-pattern suite package-pattern
    local directory=$1 file=$2 found
    mkdir -p "$directory"
    (
        flock 9
        if [ -z "$(find "$directory" -path "*/$file" -type f -print -quit)" ]; then
            vm_download "$directory" "$file" "$3" "$4" >&2
        fi
    ) 9>"$directory/lock"
    found=$(find "$directory" -path "*/$file" -type f -print -quit)
    [ -n "$found" ] && echo "$found"
}

# Downloads the newest package whose name matches, from the first mirror that has it, and unpacks
# what matches. apt gets a configuration of its own: this machine's sources and architectures are
# left alone.
vm_download() { # directory file-pattern suite package-pattern
    local apt_root=$1/apt mirror package
    local -a apt=(-qq -o Dir::Etc::sourcelist="$apt_root/sources.list" -o Dir::Etc::sourceparts=-
        -o Dir::State::Lists="$apt_root/lists" -o Dir::State::status="$apt_root/status"
        -o Dir::Cache="$apt_root/cache" -o APT::Sandbox::User=root
        -o APT::Architecture="$VM_ARCH" -o APT::Architectures="$VM_ARCH")
    while read -r mirror; do
        rm -rf "$apt_root"
        mkdir -p "$apt_root/lists/partial" "$apt_root/cache/archives/partial"
        : >"$apt_root/status"
        echo "deb [arch=$VM_ARCH signed-by=$VM_KEYRING] $mirror $3 main" >"$apt_root/sources.list"
        apt-get "${apt[@]}" update || continue
        package=$(apt-cache "${apt[@]}" search --names-only "$4" | cut -d ' ' -f 1 | sort -V |
            tail -n 1)
        [ -n "$package" ] || continue
        (cd "$apt_root" && apt-get "${apt[@]}" download "$package") || continue
        dpkg --fsys-tarfile "$apt_root"/*.deb | tar -x -C "$1" --wildcards "*/$2" 2>/dev/null
        break
    done < <(vm_mirrors "$3")
    rm -rf "$apt_root"
}

# The mirrors that may have a suite: this machine's own, of either form of sources.
vm_mirrors() { # suite
    local file part=
    case $1 in *-security) part=-security ;; esac
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list \
        /etc/apt/sources.list.d/*.sources; do
        [ -r "$file" ] || continue
        sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb \(\[[^]]*\] \)\?\([a-z]*:[^ ]*\).*/\2/p' "$file"
    done | awk -v part=$part '/\/debian\/?$/ { sub(/\/$/, ""); if (!seen[$0]++) print $0 part }'
}

# Builds static programs and prints their paths. The arguments are those of cargo, without target
# and features (VM_FEATURES names further ones); cargo's own words go to stderr.
vm_build() { # command [argument...]
    local command=$1 directory host
    shift
    directory=$(cargo metadata --locked --no-deps --format-version 1 |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
    host=$(rustc -vV | sed -n 's/^host: //p')
    # The build script of this package links the libraries too, for the machine that builds.
    static_libraries "$directory/static-host" || return
    vm_libraries "$directory/static-$VM_ARCH" || return
    env RUSTFLAGS='-C target-feature=+crt-static' \
        "LIBBPF_SYS_LIBRARY_PATH_${host//-/_}=$directory/static-host" \
        "LIBBPF_SYS_LIBRARY_PATH_${VM_TARGET//-/_}=$directory/static-$VM_ARCH" \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
        cargo "$command" --locked --no-default-features --target "$VM_TARGET" \
        --features "static${VM_FEATURES:+,$VM_FEATURES}" --message-format=json-render-diagnostics "$@" |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p'
    return "${PIPESTATUS[0]}"
}

# Puts libelf.a and libz.a of the chosen architecture into a directory.
vm_libraries() { # directory
    local name package
    if [ "$VM_ARCH" = amd64 ]; then
        static_libraries "$1"
        return
    fi
    mkdir -p "$1"
    # Of a release whose libelf.a needs nothing but itself (script/static).
    for name in libelf.a:libelf-dev libz.a:zlib1g-dev; do
        package=${name#*:} name=${name%:*}
        name=$(vm_cached "$VM_CACHE/$VM_ARCH/$package" "$name" bookworm "^$package\$") || {
            echo "the package $package cannot be had for $VM_ARCH" >&2
            return 1
        }
        cp "$name" "$1/"
    done
}

# A root directory with busybox and an init that runs /run. Its standard output and error go to a
# serial line of their own and its exit code to another, so that the kernel's words do not mix with
# them.
vm_root() { # directory
    local busybox name
    busybox=$(vm_busybox) || {
        echo 'there is no static busybox (package busybox-static)' >&2
        return 1
    }
    mkdir -p "$1"/{bin,proc,sys,dev,tmp,etc}
    cp "$busybox" "$1/bin/busybox"
    for name in sh cat dmesg grep ip mount poweroff sed stty timeout uname; do
        ln -s busybox "$1/bin/$name"
    done
    echo 'root:x:0:0::/:/bin/sh' >"$1/etc/passwd"
    cat >"$1/init" <<END
#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t securityfs security /sys/kernel/security
mount -t devtmpfs dev /dev
mount -t cgroup2 none /sys/fs/cgroup
ip link set lo up
stty raw </dev/${VM_LINES[1]}
/run >/dev/${VM_LINES[1]} 2>&1
echo "status \$?" >/dev/${VM_LINES[2]}
poweroff -f
END
    chmod +x "$1/init"
}

# Puts a program into a root directory without its debugging information, which is most of it.
vm_install() { # program root name
    "$VM_STRIP" -o "$2/$3" "$1"
}

vm_pack() { # directory initrd
    (cd "$1" && find . | cpio -o -H newc --quiet) >"$2"
}

vm_boot() { # kernel initrd out [word of the command line...]
    local kernel=$1 initrd=$2 out=$3 code
    local -a lines=(-serial "file:$3.console")
    shift 3
    case $VM_ARCH in
        amd64) lines+=(-serial "file:$out.output" -serial "file:$out.status") ;;
        arm64)
            lines+=(-chardev "file,id=output,path=$out.output" -device "pci-serial,chardev=output"
                -chardev "file,id=status,path=$out.status" -device "pci-serial,chardev=status")
            ;;
    esac
    # In the foreground: an emulator in a process group of its own would outlive an interruption.
    timeout --foreground "$VM_TIMEOUT" "$VM_QEMU" "${VM_MACHINE[@]}" -accel "$VM_ACCEL" \
        -m "$VM_MEMORY" -smp "$VM_CPUS" -nodefaults -no-user-config -display none -no-reboot \
        "${lines[@]}" -kernel "$kernel" -initrd "$initrd" \
        -append "console=${VM_LINES[0]} panic=-1 oops=panic quiet loglevel=4 mitigations=off init_on_alloc=0 audit=0 nokaslr $*"
    code=$?
    [ $code -ne 124 ] || return 124
    code=$(tr -d '\r' <"$out.status" 2>/dev/null | sed -n 's/^status \([0-9]*\)$/\1/p')
    return "${code:-125}"
}
