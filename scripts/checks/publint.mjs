/**
 * publint over the package as it would be published: exports, types and files agree. Run after dist/ is built.
 */
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';
import { isCommand, report, root } from './report.mjs';

if (isCommand(import.meta.url)) {
  const { messages, pkg } = await publint({ pkgDir: root, strict: true, pack: false });
  const problems = messages.map((message) => formatMessage(message, pkg, { color: false }) ?? message.code);
  report('publint', problems, 'exports, types and files agree');
}
