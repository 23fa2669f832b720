/** The controller's certificate authority, hosts that joined, and what invites them. */
export const statements = [
  `create table authority (one integer primary key check (one = 1), certificate text not null, key_sealed text not null)`,
  `alter table hosts add column generation text`,
  `create table invitations (name text primary key, host_id text, cluster text not null, url text, hash text not null unique, expires_at text not null, used_at text)`,
];
