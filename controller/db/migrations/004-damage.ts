/** What is wrong with a replica or a cached image, and when a cached image was last read from end to end. */
export const statements = [
  `alter table replicas add column reason text`,
  `alter table cache_entries add column reason text`,
  `alter table cache_entries add column verified_at text`,
];
