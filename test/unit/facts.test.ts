import assert from 'node:assert/strict';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { hostFacts } from '../../agent/host/facts.ts';
import { version } from '../../agent/host/qemu-img.ts';
import { AgentConfig } from '../../agent/config.ts';
import { Facts } from '../../shared/model.ts';

describe('the facts of a host', () => {
  it('name its tools with versions, its file systems and its room for spooling, also before the spool exists', async () => {
    const driver = { type: 'local', title: 'Local folder', shared: false, config: {} };
    const facts = await hostFacts(AgentConfig.parse({ stateDir: join(tmpdir(), 'not', 'there', 'yet') }), {
      primary: [driver],
      backup: [],
    });
    assert.deepEqual(Facts.parse(facts), facts);
    assert.equal(facts.tools['qemu-img'], await version());
    assert.match(facts.tools['ssh'] ?? '', /^\d+\.\d+p\d/);
    assert.equal(facts.tools['scp'], facts.tools['ssh']);
    assert.match(facts.tools['xz'] ?? '', /^5\./);
    assert.match(facts.tools['mount.nfs'] ?? '', /^\d/);
    assert.ok(facts.filesystems.includes('proc') && facts.filesystems.every(name => /^\w+$/.test(name)));
    assert.ok(facts.cage.whole, facts.cage.detail);
    assert.match(facts.tools['bwrap'] ?? '', /^\d/);
    assert.ok(facts.spool.total > facts.spool.available && facts.spool.available > 0);
    assert.match(facts.agentVersion, /^\d+\.\d+\.\d+/);
    assert.deepEqual(facts.primary, [driver]);
  });
});
