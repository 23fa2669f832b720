// What each way of using a checkout needs from the system: Debian package -> the programs in it that are called.

const base = {
  'qemu-utils': ['qemu-img', 'qemu-nbd'],
  'openssh-client': ['ssh', 'sftp', 'ssh-keygen'],
  'xz-utils': ['xz'],
  bubblewrap: ['bwrap'],
};
const nfs = { 'nfs-common': ['mount.nfs'] };
const servers = {
  'openssh-server': ['sshd'],
  e2fsprogs: ['mkfs.ext4', 'debugfs'],
};
// a whole cluster: the backup storages that speak S3, Swift and RADOS
const ceph = {
  'ceph-mon': ['ceph-mon'],
  'ceph-osd': ['ceph-osd'],
  'ceph-mgr': ['ceph-mgr'],
  'ceph-base': ['monmaptool'],
  'ceph-common': ['ceph', 'ceph-authtool', 'radosgw-admin', 'rados', 'rbd'],
  radosgw: ['radosgw'],
  'qemu-block-extra': ['../lib/systemd/system/run-qemu.mount'], // it has modules of qemu, and no program
};
const openstack = {
  'swift-proxy': ['swift-proxy-server'],
  'swift-account': ['swift-account-server'],
  'swift-container': ['swift-container-server'],
  'swift-object': ['swift-object-server'],
  memcached: ['memcached'],
  'python3-keystone': ['keystone-manage', 'keystone-wsgi-public'],
};
// file systems on small disks of the tests
const fileSystems = { xfsprogs: ['mkfs.xfs'], 'btrfs-progs': ['mkfs.btrfs', 'btrfs'] };
// hosts with kernels of their own
const lab = {
  'user-mode-linux': ['linux.uml'],
  mmdebstrap: ['mmdebstrap'],
  kmod: ['depmod'],
  iproute2: ['ip'],
};
// makers of disks whose headers are judged
const disks = { fdisk: ['sfdisk'], dosfstools: ['mkfs.vfat'], genisoimage: ['genisoimage'] };

/** `dev`: whether the npm packages for development are needed too. */
export const NEEDS = {
  start: { dev: false, packages: base, why: 'to make and move disk images' },
  controller: { dev: false, packages: {}, why: '' },
  agent: { dev: false, packages: { ...base, ...nfs }, why: 'to make and move disk images and to mount NFS' },
  demo: { dev: false, packages: { ...base, ...servers }, why: 'for disk images and a private SFTP server on loopback' },
  test: {
    dev: true,
    packages: {
      ...base,
      ...nfs,
      ...servers,
      ...ceph,
      ...openstack,
      ...disks,
      ...fileSystems,
      ...lab,
      s3cmd: ['s3cmd'],
      systemd: ['systemd-analyze', 'systemctl'],
    },
    why: 'for disk images, private SFTP, Ceph, Swift and Keystone servers on loopback, the NFS client, the check of the units and the hosts of the lab',
  },
  bench: {
    dev: true,
    packages: { ...base, ...servers, ...ceph, rclone: ['rclone'], s3cmd: ['s3cmd'] },
    why: 'for disk images, private SFTP and Ceph servers on loopback and the tools we compare with',
  },
};
