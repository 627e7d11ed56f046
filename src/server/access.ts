/**
 * Who may ask: API keys, compared in constant time, and the Host header, which keeps pages of other sites from
 * reaching a server without keys by DNS rebinding. Called by app.ts before anything else is read.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { ApiError } from './api-error.js';

export class Access {
  readonly #keys: readonly Buffer[];
  readonly #hosts: ReadonlySet<string> | undefined;

  /** `hosts` undefined: any. */
  constructor(apiKeys: readonly string[], hosts: readonly string[] | undefined) {
    this.#keys = apiKeys.map(digest);
    this.#hosts = hosts && new Set(hosts.map((host) => host.toLowerCase()));
  }

  /** Throws 403 where the Host header names another machine. */
  checkHost(host: string | undefined): void {
    if (this.#hosts === undefined) return;
    const name = (host ?? '').toLowerCase().replace(/:\d+$/, '');
    if (this.#hosts.has(name)) return;
    throw new ApiError(403, `This server does not answer for the host "${name}"`, {
      code: 'host_not_allowed',
    });
  }

  /** The client that limits apply to: the key's digest, or the address. Throws 401. */
  clientOf(authorization: string | undefined, address: string): string {
    if (this.#keys.length === 0) return address;
    const key = /^Bearer +(\S+)$/i.exec(authorization ?? '')?.[1];
    if (key === undefined) {
      throw new ApiError(401, 'Expected an API key in the Authorization header: Bearer KEY', {
        code: 'missing_api_key',
      });
    }
    const given = digest(key);
    // All keys are compared, whole digests each, so that the time tells nothing.
    let known = 0;
    for (const expected of this.#keys) known |= timingSafeEqual(given, expected) ? 1 : 0;
    if (known === 0) throw new ApiError(401, 'The API key is not known', { code: 'invalid_api_key' });
    return given.toString('base64url');
  }
}

function digest(key: string): Buffer {
  return createHash('sha256').update(key).digest();
}
