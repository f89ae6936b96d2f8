// A hook as an operator has one, for the load: hook.js PORT SECRET_FILE. It judges what is signed, drops
// what asks for it, and allows all else.
import { createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

const [port, file] = process.argv.slice(2);
if (port === undefined || file === undefined) {
  throw new Error('usage: hook.js PORT SECRET_FILE');
}
const secret = Buffer.from(readFileSync(file, 'utf8').trim().replace(/^whsec_/, ''), 'base64');

createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk));
  request.on('end', () => {
    const text = Buffer.concat(chunks).toString();
    const header = (name: string) => String(request.headers[`webhook-${name}`]);
    const signed = `${header('id')}.${header('timestamp')}.${text}`;
    const signature = `v1,${createHmac('sha256', secret).update(signed).digest('base64')}`;
    if (header('signature') !== signature) {
      response.writeHead(401).end();
      return;
    }
    const { body } = JSON.parse(text) as { body: string };
    const dropped = Buffer.from(body, 'base64').toString().includes('drop');
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ verdict: dropped ? 'drop' : 'allow' }));
  });
}).listen(Number(port), '127.0.0.1');
