/** Tokens with roles, and who asked for what. */
export const statements = [
  `create table tokens (id text primary key, name text not null unique, role text not null, hash text not null unique, expires_at text, created_at text not null, made_by text)`,
  `alter table operations add column asked_by text`,
  `alter table operations add column role text not null default 'admin'`,
  `alter table events add column asked_by text`,
];
