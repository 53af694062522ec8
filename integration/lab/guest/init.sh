#!/bin/busybox sh
# /init of the lab's guest: what a Flatcar machine does at its first boot, as far as a boot server can see it. It runs
# the real Ignition against the config that the boot server put into the initrd, shows what was written, and runs the
# phone-home that Ignition's unit names. It never waits for anybody: each way out of here ends in a power-off.
#
# Lines for the tests (all begin with LAB-):
#   LAB-CMDLINE <text>            what the boot script gave to the kernel
#   LAB-ADDR <address>            of the network card, by DHCP
#   LAB-IGNITION-FETCH rc=<n>     LAB-IGNITION-FILES rc=<n>
#   LAB-FILE <path> <mode> <size> <sha256>, then LAB-TEXT <line> for each line of a file that others may read
#   LAB-HOSTNAME <name>           as Ignition wrote it
#   LAB-DONE rc=<n>               the exit code of the phone-home
#   LAB-FAIL <reason>             always the last one, when there is one
/bin/busybox mkdir -p /proc /sys /dev /etc /run /tmp
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
# The serial line, whatever console the kernel was told to use; and no oops may leave the machine standing.
exec </dev/null >/dev/ttyS0 2>&1
echo 1 >/proc/sys/kernel/panic_on_oops
echo -1 >/proc/sys/kernel/panic
echo 4 >/proc/sys/kernel/printk

off() { echo; sync; poweroff -f; }
fail() { echo "LAB-FAIL $*"; off; }
trap 'fail init ended early' EXIT
(sleep 240; fail timeout, the machine ran for 240 seconds) &

read -r cmdline </proc/cmdline
echo "LAB-CMDLINE $cmdline"
config=/usr/share/oem/config.ign
[ -s $config ] || fail "no $config: the boot server gave no per-machine initrd"

while read -r module; do
  insmod "/modules/$module" || fail "module $module does not load"
done </modules/order

cat >/bin/lease <<'LEASE'
#!/bin/busybox sh
[ "$1" = bound ] || exit 0
ip address add "$ip/${mask:-24}" dev "$interface"
for r in $router; do ip route add default via "$r"; done
for d in $dns; do echo "nameserver $d"; done >/etc/resolv.conf
[ -n "$domain" ] && echo "search $domain" >>/etc/resolv.conf
echo "LAB-ADDR $ip"
LEASE
chmod +x /bin/lease
ip link set lo up
ip link set eth0 up || fail "no network card"
udhcpc -f -q -n -i eth0 -s /bin/lease -t 10 -T 1 || fail "no DHCP lease"

mkdir -p /usr/lib/ignition
cp $config /usr/lib/ignition/user.ign
# What Ignition writes is told by its being newer than all else, which has a time of 1970: find counts in whole seconds.
cp /etc/resolv.conf /sysroot/etc/resolv.conf
touch -d @0 /sysroot/etc/resolv.conf
touch -d @1 /run/before

stage() {
  timeout 100 ignition --platform=metal --stage="$1" --root=/sysroot --config-cache=/run/ignition.json \
    --neednet=/run/neednet --log-to-stdout
}
stage fetch
rc=$?
echo "LAB-IGNITION-FETCH rc=$rc"
[ $rc = 0 ] || fail "ignition fetch rc=$rc"
stage files
rc=$?
echo "LAB-IGNITION-FILES rc=$rc"
[ $rc = 0 ] || fail "ignition files rc=$rc"

# What nobody but root may read is a secret as like as not: a serial console is no place for it.
show() {
  mode=$(stat -c %a "$1")
  sum=$(sha256sum "$1")
  echo "LAB-FILE ${1#/sysroot} 0$mode $(stat -c %s "$1") ${sum%% *}"
  case $mode in
  *00) ;;
  *) head -c 8192 "$1" | cat -v | while IFS= read -r line || [ -n "$line" ]; do echo "LAB-TEXT $line"; done ;;
  esac
}
find /sysroot -type f -newer /run/before | sort | while read -r file; do show "$file"; done
[ ! -e /sysroot/etc/hostname ] || echo "LAB-HOSTNAME $(cat /sysroot/etc/hostname)"

unit=/sysroot/etc/systemd/system/nestboot-done.service
[ -e $unit ] || fail "ignition wrote no ${unit#/sysroot}"
command=$(sed -n 's/^ExecStart=//p' $unit | sed 's/%%/%/g')
[ -n "$command" ] || fail "${unit#/sysroot} has no ExecStart"
set -f
# Word splitting is wanted: systemd splits the same way, and no shell may look at the words.
# shellcheck disable=SC2086
chroot /sysroot $command
echo "LAB-DONE rc=$?"
trap - EXIT
off
