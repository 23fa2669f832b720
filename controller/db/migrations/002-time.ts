/**
 * Time that does not depend on the machine's clock, and the controller's own history. `elapsed` counts the milliseconds that
 * controllers have run on this database; `sequence` grows with every commit; each start of a controller is a run.
 */
export const statements = [
  `create table controller (one integer primary key check (one = 1), sequence integer not null, elapsed integer not null, recovery_json text)`,
  `insert into controller (one, sequence, elapsed) values (1, 0, 0)`,
  `create table runs (id text primary key, sequence integer not null)`,
  `alter table hosts add column adopt integer not null default 1`,
  `alter table pools add column measured_elapsed integer`,
  `alter table volumes add column deleted_elapsed integer`,
  `alter table operations add column finished_elapsed integer`,
  `alter table events add column elapsed integer`,
];
