/** What makes a Debian of the lab one of its hosts: files that are put into its root file system. */

/** Debian packages of every host: what an operator's KVM host has, and what an NFS server needs. */
export const PACKAGES = [
  ...['systemd', 'systemd-sysv', 'dbus', 'udev', 'kmod', 'iproute2', 'procps', 'util-linux', 'mount', 'ca-certificates'],
  ...['openssh-server', 'openssh-client', 'nfs-common', 'nfs-kernel-server', 'rpcbind', 'qemu-utils', 'xz-utils', 'bubblewrap'],
];

/** Units that find nothing to do on a host without hardware, and cost seconds of its start. */
export const MASKED = [
  ...['systemd-udev-trigger.service', 'systemd-udevd.service', 'systemd-udevd-kernel.socket', 'systemd-udevd-control.socket'],
  ...['systemd-logind.service', 'systemd-binfmt.service', 'systemd-journal-flush.service', 'systemd-update-utmp.service'],
  ...['e2scrub_reap.service', 'kmod-static-nodes.service', 'systemd-tmpfiles-setup-dev.service', 'modprobe@loop.service'],
  ...['modprobe@efi_pstore.service', 'modprobe@dm_mod.service', 'modprobe@configfs.service', 'sys-kernel-config.mount'],
  ...['dev-mqueue.mount', 'dev-hugepages.mount', 'systemd-random-seed.service', 'systemd-timesyncd.service'],
  ...['getty@.service', 'serial-getty@.service', 'console-getty.service', 'apt-daily.timer', 'apt-daily-upgrade.timer'],
  ...['dpkg-db-backup.timer', 'fstrim.timer', 'e2scrub_all.timer', 'nfs-blkmap.service', 'nfs-server.service'],
];

/** Runs before the network is wanted: name and address come by the kernel's command line, the agent on a disk of its own. */
const SETUP = `#!/bin/sh
set -eu
for word in $(cat /proc/cmdline); do
  case $word in lab.ip=*) ip=\${word#lab.ip=} ;; lab.name=*) name=\${word#lab.name=} ;; esac
done
hostname "$name"
ip link set lo up
ip addr add "$ip/24" dev vec0
ip link set vec0 up
mkdir -p /stage /opt/cistern
mount -o ro /dev/ubdb /stage
mount --bind /stage/opt/cistern /opt/cistern
cp -a /stage/etc/. /etc/
cp -a /stage/usr/. /usr/
systemd-sysusers /etc/sysusers.d/cistern.conf
systemd-tmpfiles --create /etc/tmpfiles.d/cistern.conf
systemctl daemon-reload
`;

const SETUP_UNIT = `[Unit]
Description=name, address and agent of this host
DefaultDependencies=no
After=systemd-modules-load.service systemd-remount-fs.service
Before=network-pre.target network.target network-online.target rpcbind.service ssh.service
Wants=network.target network-online.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/lab-setup
[Install]
WantedBy=sysinit.target
`;

/** On the console once it may be logged in to. */
export const READY = 'LAB-READY';

const READY_UNIT = `[Unit]
Description=tells the console that this host is up
After=ssh.service lab-setup.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo ${READY} > /dev/console'
[Install]
WantedBy=multi-user.target
`;

interface GuestFile {
  mode?: number;
  text: string;
}

/** Path below the root -> file. */
export const FILES: Record<string, GuestFile> = {
  'usr/local/sbin/lab-setup': { mode: 0o755, text: SETUP },
  'etc/systemd/system/lab-setup.service': { text: SETUP_UNIT },
  'etc/systemd/system/lab-ready.service': { text: READY_UNIT },
  'etc/fstab': { text: '/dev/root / auto defaults,noatime 0 0\n' },
  'etc/machine-id': { text: '' },
  'etc/modules-load.d/lab.conf': { text: 'nfs\nnfsv3\nnfsv4\nnfsd\n' },
  // a server that comes back lets its clients go on after so many seconds
  'etc/nfs.conf.d/lab.conf': { text: '[nfsd]\nlease-time=10\ngrace-time=10\n' },
  'etc/exports': { text: '/export *(rw,sync,no_subtree_check,no_root_squash,insecure,fsid=0)\n' },
  'export/.keep': { text: '' },
};

/** rpc-statd from the start: else the first NFSv3 mount waits 5 s for it. */
export const ENABLED = ['lab-setup.service', 'lab-ready.service', 'ssh.service'];
