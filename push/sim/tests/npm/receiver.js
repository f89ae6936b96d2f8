// An independent receiver of Web Push, web-push-testing, on loopback: it prints its port and runs
// until its standard input ends.
'use strict';

const Server = require('web-push-testing/src/server.js');
const { PushApiModel } = require('web-push-testing/src/PushApiModel.js');

const model = new PushApiModel();
const server = new Server(model, 0);
server.setRequestHandlers();
const listening = server._app.listen(0, '127.0.0.1', () => {
  const { port } = listening.address();
  model.notifyUrl = `http://127.0.0.1:${port}/notify/`;
  console.log(port);
});

process.stdin.on('end', () => process.exit(0)).resume();
