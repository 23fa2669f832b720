import type { Command } from 'commander';
import { Option } from 'commander';
import { State, Status, type Host } from '../../../shared/model.ts';
import { type Call, leaf, type Runtime } from '../command.ts';
import { readAgentToken } from '../connection.ts';
import { listFor, type NameOf, namesOf, withLimit } from '../lists.ts';
import { runOperation, withWait } from '../operation.ts';
import type { Column } from '../table.ts';
import { formatAge, formatBytes } from '../units.ts';

export const hostColumns = (nameOf: NameOf): Column<Host>[] => [
  { title: 'NAME', value: h => h.name },
  { title: 'STATUS', value: h => h.status },
  { title: 'STATE', value: h => h.state, yields: 3 },
  { title: 'CLUSTER', value: h => nameOf(h.clusterId), yields: 2 },
  { title: 'ADDRESS', value: h => h.url, yields: 4 },
  { title: 'SEEN', value: h => formatAge(h.lastSeenAt), align: 'right', yields: 5 },
  { title: 'REASON', value: h => h.reason ?? '', yields: 1 },
  { title: 'ID', value: h => h.id, yields: 6, whole: true },
];

/** `cistern host`: the KVM hosts and their agents. */
export function addHostCommands(runtime: Runtime, program: Command): void {
  const host = program.command('host').description('KVM hosts and their agents');
  const states = new Option('--state <state>', 'enabled, maintenance or disabled').choices(State.options);
  withLimit(
    leaf(runtime, host, {
      usage: 'list',
      summary: 'List hosts',
      examples: ['host list', 'host list --status disconnected', 'host list --output json'],
      action: async call => {
        const { cluster, status, state } = call.options as { cluster?: string; status?: Host['status']; state?: Host['state'] };
        const hosts = await listFor(call, page => call.client.listHosts({ query: { ...page, cluster, status, state } }));
        call.out.list(hostColumns(await namesOf(call, 'cluster')), hosts);
      },
    })
      .option('--cluster <cluster>', 'only of this cluster')
      .addOption(new Option('--status <status>', 'only with this status').choices(Status.options))
      .addOption(new Option('--state <state>', 'only in this state').choices(State.options)),
  );
  leaf(runtime, host, {
    usage: 'show <host>',
    summary: 'Show a host and what its agent found there',
    examples: ['host show kvm1'],
    action: async call => show(call, await call.client.getHost({ params: { ref: call.args[0]! } })),
  });
  withWait(
    leaf(runtime, host, {
      usage: 'add <name> [agent-url]',
      summary: 'Print the command with which a host joins; or add the agent of this machine by address and token',
      examples: [
        'host add kvm1',
        'host add kvm2 https://kvm2.example.org:7071 --cluster east',
        'host add here http://127.0.0.1:7071 --agent-token-file /var/lib/cistern-agent/token',
      ],
      action: async call => {
        const { agentTokenFile, cluster } = call.options as { agentTokenFile?: string; cluster?: string };
        const [name, url] = call.args as [string, string | undefined];
        if (agentTokenFile === undefined) return invite(call, await call.client.inviteHost({ body: { name, url, cluster } }));
        if (url === undefined) return call.usage('an agent token is of no use without the address of the agent');
        const body = { name, url, token: readAgentToken(agentTokenFile, call.io.env), cluster };
        return runOperation(call, options => call.client.addHost({ body }, options));
      },
    })
      .option('--agent-token-file <path>', "file with the agent's token, for one on loopback that does not join")
      .option('--cluster <cluster>', 'made when there is none of that name (default: "default")'),
  );
  leaf(runtime, host, {
    usage: 'rejoin <host>',
    summary: 'Print the command with which a known host joins anew; its older certificates end when it does',
    examples: ['host rejoin kvm1'],
    action: async call => invite(call, await call.client.rejoinHost({ params: { ref: call.args[0]! } })),
  });
  leaf(runtime, host, {
    usage: 'update <host>',
    summary: 'Rename a host, or enable it, disable it or put it into maintenance',
    examples: ['host update kvm1 --state maintenance', 'host update kvm1 --name rack3-kvm1'],
    action: async call => {
      const { name, state } = call.options as { name?: string; state?: Host['state'] };
      if (name === undefined && state === undefined) call.usage('nothing to change: give --name or --state');
      await show(call, await call.client.updateHost({ params: { ref: call.args[0]! }, body: { name, state } }));
    },
  })
    .option('--name <name>', 'the new name')
    .addOption(states);
  withWait(
    leaf(runtime, host, {
      usage: 'reconnect <host>',
      summary: 'Connect to the agent again and read its facts',
      examples: ['host reconnect kvm1'],
      action: call => runOperation(call, options => call.client.reconnectHost({ params: { ref: call.args[0]! } }, options)),
    }),
  );
  withWait(
    leaf(runtime, host, {
      usage: 'remove <host>',
      summary: 'Remove a host; refused while volumes lie on its local pools',
      examples: ['host remove kvm1'],
      action: call => runOperation(call, options => call.client.removeHost({ params: { ref: call.args[0]! } }, options)),
    }),
  );
}

/** Prints the one command for the host. The token goes by a pipe: arguments show in process lists. */
function invite(call: Call, invited: Awaited<ReturnType<Call['client']['inviteHost']>>): void {
  const { name, url, token, fingerprint, expiresAt } = invited;
  const join = `echo ${token} | sudo cistern-agent join ${url} --ca-fingerprint ${fingerprint} --token-file -`;
  call.out.say(join, { ...invited, command: join });
  call.out.note(`run this on host ${name} before ${expiresAt}; it works once`);
}

async function show(call: Call, host: Host): Promise<void> {
  const nameOf = await namesOf(call, 'cluster');
  const facts = host.facts;
  call.out.show(host, [
    ['name', host.name],
    ['id', host.id],
    ['status', host.status],
    ['reason', host.reason ?? undefined],
    ['state', host.state],
    ['cluster', nameOf(host.clusterId)],
    ['address', host.url],
    ['last seen', host.lastSeenAt ? `${host.lastSeenAt} (${formatAge(host.lastSeenAt)} ago)` : 'never'],
    ['agent', facts ? `${facts.agentVersion}, since ${facts.startedAt}` : undefined],
    [
      'machine',
      facts
        ? `${facts.hostname}, ${facts.arch}, ${facts.cpus} CPUs, ${formatBytes(facts.memory)}, Linux ${facts.kernel}`
        : undefined,
    ],
    ['untrusted images', facts ? `${facts.cage.whole ? 'locked in' : 'not locked in'}: ${facts.cage.detail}` : undefined],
    ['spool', facts ? `${formatBytes(facts.spool.available)} free of ${formatBytes(facts.spool.total)}` : undefined],
    ['primary storage', facts?.primary.map(driver => driver.type).join(', ')],
    ['backup storage', facts?.backup.map(driver => driver.type).join(', ')],
    [
      'tools',
      facts
        ? Object.entries(facts.tools)
            .map(([tool, version]) => `${tool} ${version ?? '(missing)'}`)
            .join(', ')
        : undefined,
    ],
  ]);
}
