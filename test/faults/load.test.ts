/** 20,000 operations, and a flood of wrong tokens: what memory, the database and good clients make of it is printed. */
import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { done, type Service, WAIT } from '../servers/cistern.ts';
import { descendants } from '../servers/processes.ts';
import { type House, MiB, openHouse } from '../e2e/house.ts';

const OPERATIONS = 20_000;
const LOOKS = 8;
const CLIENTS = 32;
/** What grew with each operation would end a service that has so little room. */
const SMALL = { NODE_OPTIONS: '--max-semi-space-size=4 --max-old-space-size=128' };

describe('load', () => {
  let house: House;
  before(async () => {
    house = await openHouse({ env: { controller: SMALL, agents: SMALL } });
    await house.addPool('fast', { overcommit: 1000 });
  });
  after(() => house?.[Symbol.asyncDispose]());

  /** MiB of heap that a service says it has in use (/metrics), the least of a few looks: what garbage there is comes and goes. */
  async function heap(service: Service): Promise<number> {
    const seen: number[] = [];
    for (let look = 0; look < 5; look++) {
      const answer = await fetch(`${service.url}/metrics`, { headers: { Authorization: `Bearer ${service.token}` } });
      seen.push(Number(/^(?:cistern_controller_)?nodejs_heap_size_used_bytes (\d+)/m.exec(await answer.text())![1]) / MiB);
      await delay(100);
    }
    return Math.min(...seen);
  }
  const resident = (pid: number): number => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024;

  it('memory is flat over 20,000 operations', async function () {
    this.timeout(600_000);
    const { controller, agents, api } = house.cistern;
    const agent = agents[0]!;
    const figures: { operations: number; controller: number; agent: number; rss: number[]; database: number }[] = [];
    const look = async (operations: number): Promise<void> => {
      const pids = [controller.pid, agent.pid, ...(await descendants(agent.pid))];
      const database = statSync(join(house.cistern.folder, 'controller/state/cistern.db')).size / MiB;
      figures.push({
        operations,
        controller: await heap(controller),
        agent: await heap(agent),
        rss: pids.map(resident),
        database,
      });
    };
    let n = 0;
    const began = performance.now();
    for (let part = 1; part <= LOOKS; part++) {
      const until = (OPERATIONS / LOOKS) * part;
      const client = async (): Promise<void> => {
        // two operations a volume: it is made, and it goes
        while ((n += 2) <= until) {
          const { resources } = await done(api.createVolumes({ body: { name: `load-${n}`, size: MiB } }, WAIT));
          const { id } = resources.find(one => one.kind === 'volume')!;
          await done(api.deleteVolume({ params: { ref: id } }, WAIT));
        }
        n -= 2;
      };
      await Promise.all(Array.from({ length: CLIENTS }, client));
      await look(until);
    }
    const seconds = (performance.now() - began) / 1000;
    console.log(`    ${n} operations in ${seconds.toFixed(0)} s, ${(n / seconds).toFixed(0)} a second`);
    console.log('    operations  heap: controller  agent   resident: controller, agent, workers   database (MiB)');
    for (const { operations, controller, agent, rss, database } of figures)
      console.log(
        `    ${String(operations).padStart(10)}  ${controller.toFixed(1).padStart(16)}  ${agent.toFixed(1).padStart(5)}   ${rss
          .map(one => one.toFixed(0))
          .join(', ')
          .padEnd(36)} ${database.toFixed(1)}`,
      );
    assert.equal(n, OPERATIONS);
    // of the controller and the agent; the heap itself goes up and down with its garbage
    for (const [i, service] of ['controller', 'agent'].entries()) {
      const most = (some: typeof figures): number => Math.max(...some.map(({ rss }) => rss[i]!));
      const [early, late] = [most(figures.slice(1, LOOKS / 2)), most(figures.slice(LOOKS / 2))];
      assert.ok(late < early * 1.2 + 16, `the ${service} grew from ${early} to ${late} MiB`);
    }
  });

  it('2,000 requests a second with wrong tokens leave good ones alone', async function () {
    this.timeout(120_000);
    const { controller } = house.cistern;
    const quiet = await goodOnes(controller, 300);
    const flood = new Worker(FLOOD, { eval: true, workerData: { url: controller.url, rate: 2000, seconds: 60 } });
    const answers = new Promise<Record<string, number>>(resolve => flood.once('message', resolve));
    await new Promise(resolve => flood.once('online', resolve));
    const flooded = await goodOnes(controller, 300);
    flood.postMessage('stop');
    const counts = await answers;
    await flood.terminate();
    console.log(`    good requests, p50/p95 in ms: alone ${quiet.text}, beside the flood ${flooded.text}`);
    console.log(`    the flood was answered: ${JSON.stringify(counts)}`);
    assert.deepEqual([quiet.failed, flooded.failed], [0, 0], 'a good request failed');
    assert.ok(Object.keys(counts).every(status => ['401', '429'].includes(status)), JSON.stringify(counts)); // prettier-ignore
    assert.ok((counts['401'] ?? 0) > 0 && (counts['429'] ?? 0) > 0, JSON.stringify(counts));
  });
});

/** One good request after the other. */
async function goodOnes(service: Service, count: number): Promise<{ text: string; failed: number }> {
  const agent = new Agent({ keepAlive: true });
  const { hostname, port } = new URL(service.url);
  const times: number[] = [];
  let failed = 0;
  for (let i = 0; i < count; i++) {
    const began = performance.now();
    const status = await new Promise<number>((resolve, reject) =>
      request(
        { hostname, port, agent, path: '/api/v1/hosts', headers: { Authorization: `Bearer ${service.token}` }, timeout: 30_000 },
        res => res.resume().once('end', () => resolve(res.statusCode!)),
      )
        .on('error', reject)
        .end(),
    );
    if (status !== 200) failed++;
    times.push(performance.now() - began);
    await delay(5);
  }
  agent.destroy();
  times.sort((a, b) => a - b);
  return { failed, text: [0.5, 0.95].map(q => times[Math.floor(q * count)]!.toFixed(1)).join('/') };
}

/** Runs in a thread of its own, so that it takes no time from who measures; ends by itself. */
const FLOOD = `
const { Agent, request } = require('node:http');
const { parentPort, workerData } = require('node:worker_threads');
const { url, rate, seconds } = workerData;
const { hostname, port } = new URL(url);
const agent = new Agent({ keepAlive: true, maxSockets: 64 });
const counts = {};
let open = 0;
const timer = setInterval(() => {
  for (let i = 0; i < rate / 100 && open < 256; i++) {
    open++;
    request({ hostname, port, agent, path: '/api/v1/hosts', headers: { Authorization: 'Bearer ' + 'x'.repeat(43) } }, res => {
      counts[res.statusCode] = (counts[res.statusCode] ?? 0) + 1;
      res.resume().once('close', () => open--);
    }).on('error', error => { open--; counts[error.code] = (counts[error.code] ?? 0) + 1; }).end();
  }
}, 10);
const stop = () => { clearInterval(timer); agent.destroy(); parentPort.postMessage(counts); };
const late = setTimeout(stop, seconds * 1000);
parentPort.once('message', () => { clearTimeout(late); setTimeout(stop, 500); });
`;
