// An independent sender to APNs, @parse/node-apn: sends to every token of its arguments, one after the
// other, and prints what became of each, a line of JSON per token.
'use strict';

const apn = require('@parse/node-apn');

const [key, ca, keyId, teamId, topic, port, ...tokens] = process.argv.slice(2);
const provider = new apn.Provider({
  token: { key, keyId, teamId },
  address: '127.0.0.1',
  port: Number(port),
  ca: [ca],
  production: false,
});

async function main() {
  for (const token of tokens) {
    const note = new apn.Notification();
    note.topic = topic;
    note.pushType = 'alert';
    note.priority = 10;
    note.expiry = Math.floor(Date.now() / 1000) + 3600;
    note.collapseId = 'conversation';
    note.alert = 'hello';
    const { sent, failed } = await provider.send(note, token);
    const [failure] = failed;
    console.log(JSON.stringify({
      sent: sent.length,
      status: failure ? failure.status : null,
      response: failure ? failure.response : null,
      error: failure && failure.error ? String(failure.error) : null,
    }));
  }
  await provider.shutdown();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
