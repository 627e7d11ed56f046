/**
 * The page to look at (GET /): the files of the package's dashboard/ folder as they are, with headers that let it load
 * nothing from anywhere else. Called by app.ts. The page itself asks /v1/stats and /v1/chat/completions.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

const FOLDER = new URL('../../dashboard/', import.meta.url);
const TYPES = {
  html: 'text/html; charset=utf-8',
  css: 'text/css; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  svg: 'image/svg+xml',
} as const;
const PAGE = 'index.html';
const FILES = [
  PAGE,
  'style.css',
  'icon.svg',
  'main.js',
  'api.js',
  'chat.js',
  'experts.js',
  'figures.js',
  'lanes.js',
  'live.js',
];

const HEADERS = {
  'cache-control': 'no-cache',
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
};

type DashboardFile = { body: Uint8Array; headers: Record<string, string> };

/** Reads the page's files once; by path below the server's root. */
export function readDashboard(): ReadonlyMap<string, DashboardFile> {
  return new Map(
    FILES.map((name) => {
      const body = readFileSync(new URL(name, FOLDER));
      const type = TYPES[name.slice(name.lastIndexOf('.') + 1) as keyof typeof TYPES];
      const etag = `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"`;
      const headers = { ...HEADERS, 'content-type': type, etag };
      return [name === PAGE ? '/' : `/dashboard/${name}`, { body, headers }];
    }),
  );
}

/** The file, or 304 where the browser has it. */
export function dashboardResponse(
  { body, headers }: DashboardFile,
  ifNoneMatch: string | undefined,
): Response {
  if (ifNoneMatch === headers.etag) return new Response(null, { status: 304, headers });
  return new Response(Buffer.from(body), { headers });
}
