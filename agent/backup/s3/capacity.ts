import type { Capacity } from '../../../shared/model.ts';
import type { Control } from './client.ts';

/**
 * The room that the quota of the bucket leaves; null where it has none, or the service does not tell. S3 has no word for it: these are
 * headers of Ceph's RGW (rgw_rest_s3.cc, dump_bucket_from_state).
 */
export async function bucketQuota({ sdk, bucket: Bucket, ask }: Control, name: string): Promise<Capacity | null> {
  let headers: Record<string, string> = {};
  const command = new sdk.HeadBucketCommand({ Bucket });
  command.middlewareStack.add(
    next => async args => {
      const result = await next(args);
      headers = (result.response as { headers: Record<string, string> }).headers;
      return result;
    },
    { step: 'deserialize', priority: 'low' },
  );
  await ask(`looking at ${name}`, (client, options) => client.send(command, options));
  const [total, used] = ['x-rgw-quota-bucket-size', 'x-rgw-bytes-used'].map(header => Number(headers[header] ?? '-1')) as [
    number,
    number,
  ];
  return total >= 0 && used >= 0 ? { total, available: Math.max(0, total - used) } : null;
}
