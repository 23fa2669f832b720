/** How fast bytes may go to and from a backup storage, over all hosts, and in how many transfers at once. */
export const statements = [
  `alter table backup_storages add column bytes_per_second integer`,
  `alter table backup_storages add column transfers integer`,
];
