import { z } from 'zod';

/** Settings of an agent: `/etc/cistern/agent.json`, or CISTERN_AGENT_* in the environment. */
export const AgentConfig = z.strictObject({
  listen: z.string().optional().describe('address to listen on; else 127.0.0.1, and all once the host has joined a controller'),
  port: z.int().min(0).max(65535).default(7071).describe('0: any free port'),
  stateDir: z.string().default('/var/lib/cistern-agent').describe('token, task journal and spool'),
  spoolDir: z
    .string()
    .optional()
    .describe('where images are converted; needs room for the largest two times; else STATE_DIR/spool'),
  mountDir: z.string().default('/run/cistern/mnt').describe('below it pools are mounted'),
  logLevel: z.enum(['debug', 'info', 'warn', 'error', 'silent']).default('info'),
  importAllow: z
    .array(z.string())
    .default([])
    .describe('addresses or CIDR blocks that image URLs may lead to although they are private or loopback'),
  maxVirtualSize: z
    .int()
    .default(16 * 2 ** 40)
    .describe('largest disk that an imported image may show a guest, in bytes'),
  maxImageSize: z
    .int()
    .default(2 * 2 ** 40)
    .describe('largest file that an import may fetch or decompress to, in bytes'),
  maxExpansion: z.int().default(1000).describe('how many times larger than its compressed form an import may become'),
  stallSeconds: z.number().default(60).describe('a transfer that moves no byte for so long is given up'),
  drivers: z
    .array(z.string().min(1).max(4096))
    .default([])
    .describe('packages or absolute paths of backup storage drivers of others'),
  streams: z.int().min(1).max(16).default(2).describe('parallel streams of one transfer'),
});
export type AgentConfig = z.output<typeof AgentConfig>;
