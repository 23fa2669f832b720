/** Settings of a Ceph cluster of one monitor, one OSD and one RGW on loopback, made to start within seconds and to keep nothing. */

export interface CephPlaces {
  folder: string;
  fsid: string;
  monPorts: { v1: number; v2: number };
  rgwPort: number;
  store: 'memstore' | 'bluestore';
}

export const cephConfig = ({ folder, fsid, monPorts, rgwPort, store }: CephPlaces): string => `
[global]
fsid = ${fsid}
mon_host = [v2:127.0.0.1:${monPorts.v2},v1:127.0.0.1:${monPorts.v1}]
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
keyring = ${folder}/keyring
run_dir = ${folder}/run
admin_socket = ${folder}/run/$name.$pid.asok
log_file = ${folder}/log/$name.log
mon_cluster_log_file = ${folder}/log/cluster.log
crash_dir = ${folder}/run
heartbeat_file =
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
mon_warn_on_pool_no_redundancy = false
mon_max_pg_per_osd = 2000
mon_data_avail_warn = 2
mon_data_avail_crit = 1
client_mount_timeout = 30
auth_allow_insecure_global_id_reclaim = false
ms_bind_ipv6 = false
public_network = 127.0.0.0/8
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
[mon]
mon_data = ${folder}/mon
mon_osd_crush_smoke_test = false
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
[osd]
osd_data = ${folder}/osd
keyring = ${folder}/osd/keyring
osd_objectstore = ${store}
memstore_device_bytes = 2G
bluestore_block_size = 16G
bluestore_fsck_on_mount = false
osd_memory_target = 939524096
bluestore_cache_autotune = false
bluestore_cache_size = 67108864
osd_class_load_list = *
osd_class_default_list = *
osd_op_num_shards = 2
osd_crush_update_on_start = true
osd_mclock_skip_benchmark = true
[mgr]
mgr_data = ${folder}/mgr
mgr_initial_modules =
mgr_stats_period = 1
[client.rgw.a]
rgw_frontends = beast endpoint=127.0.0.1:${rgwPort}
rgw_data = ${folder}/rgw
rgw_run_sync_thread = false
rgw_enable_quota_threads = false
rgw_bucket_quota_ttl = 0
rgw_thread_pool_size = 32
rgw_num_rados_handles = 1
rgw_gc_max_objs = 1
rgw_lc_max_objs = 1
rgw_reshard_num_logs = 1
rgw_data_log_num_shards = 1
rgw_md_log_max_shards = 1
rgw_usage_max_shards = 1
rgw_objexp_hints_num_shards = 1
rgw_override_bucket_index_max_shards = 1
rgw_swift_account_in_url = true
debug_rgw = 1
`;
