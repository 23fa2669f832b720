/** What volumes of a primary storage are to who runs VMs: its driver says. Until now all were files. */
export const statements = [
  `alter table primary_storages add column volume_format text not null default 'qcow2'`,
  `alter table primary_storages add column volume_path text not null default 'volumes/{volume}/{layer}.qcow2'`,
  `alter table volumes add column format text not null default 'qcow2'`,
  `alter table volumes add column path text not null default ''`,
  `update volumes set path = 'volumes/' || id || '/' || layer_id || '.qcow2'`,
];
