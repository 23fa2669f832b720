/** What the servers of a Swift cluster of one disk are started with. */
import type { TestKeystone } from './keystone.ts';

export interface SwiftOptions {
  /** Segments that a large object may name; 1000 is Swift's default. */
  maxSegments?: number;
  /** Whether there is Keystone before it, too. */
  keystone?: boolean;
}

export interface Ports {
  proxy: number;
  memcached: number;
  account: number;
  container: number;
  object: number;
}

export type Kind = 'account' | 'container' | 'object';

const common = (folder: string, port: number): string => `
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = ${port}
swift_dir = ${folder}
user = root
workers = 0
log_address = ${folder}/none
`;

export const storageConfig = (folder: string, kind: Kind, port: number): string => `${common(folder, port)}
devices = ${folder}/srv
mount_check = false
disable_fallocate = true
fallocate_reserve = 0
recon_cache_path = ${folder}/cache
[pipeline:main]
pipeline = ${kind}-server
[app:${kind}-server]
use = egg:swift#${kind}
allow_versions = on
`;

export function proxyConfig(folder: string, ports: Ports, options: SwiftOptions, keystone: TestKeystone | undefined): string {
  const auth = keystone === undefined ? 'tempauth' : 'authtoken keystoneauth';
  return `${common(folder, ports.proxy)}
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache listing_formats bulk ${auth} copy container-quotas account-quotas slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
${['catch_errors', 'gatekeeper', 'healthcheck', 'listing_formats', 'bulk', 'copy', 'dlo'].map(plainFilter).join('')}
[filter:container-quotas]
use = egg:swift#container_quotas
[filter:account-quotas]
use = egg:swift#account_quotas
[filter:slo]
use = egg:swift#slo
max_manifest_segments = ${options.maxSegments ?? 1000}
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:${ports.memcached}
${keystone === undefined ? tempauth : keystoneFilters(keystone)}`;
}

const plainFilter = (name: string): string => `[filter:${name}]\nuse = egg:swift#${name}\n`;

const tempauth = `
[filter:tempauth]
use = egg:swift#tempauth
user_admin_admin = admin .admin .reseller_admin
user_test_tester = testing .admin
user_test_reader = reading
`;

const keystoneFilters = ({ url, user, password, project }: TestKeystone): string => `
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
www_authenticate_uri = ${url}
auth_url = ${url}
auth_type = password
username = ${user}
password = ${password}
project_name = ${project}
user_domain_id = default
project_domain_id = default
delay_auth_decision = true
include_service_catalog = false
cache = swift.cache
interface = public
[filter:keystoneauth]
use = egg:swift#keystoneauth
operator_roles = admin, member
`;

/** Makes the rings: which disk of which server has what. Arguments: folder, then the ports of account, container and object. */
export const RINGS = `
import sys
from swift.common.ring import RingBuilder
for kind, port in zip(('account', 'container', 'object'), sys.argv[2:]):
    builder = RingBuilder(6, 1, 0)
    builder.add_dev({'region': 1, 'zone': 1, 'ip': '127.0.0.1', 'port': int(port), 'device': 'd1', 'weight': 1.0,
                     'replication_ip': '127.0.0.1', 'replication_port': int(port), 'meta': ''})
    builder.rebalance()
    builder.get_ring().save('%s/%s.ring.gz' % (sys.argv[1], kind))
`;
