/** How full a pool was found to be when it was last measured, so that an event comes when that changes. */
export const statements = [`alter table pools add column level text not null default 'ok'`];
