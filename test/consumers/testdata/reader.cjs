// A client of the SDK for JavaScript with nothing but the defaults: see serve of
// readers_go_test.go. HTTPS_PROXY it leaves to the program that uses it.
const https = require('node:https');
const http = require('node:http');
const tls = require('node:tls');
const readline = require('node:readline');
const { STSClient, GetCallerIdentityCommand } = require('@aws-sdk/client-sts');

class Tunnel extends https.Agent {
  createConnection(options, done) {
    const proxy = new URL(process.env.HTTPS_PROXY);
    http
      .request({ host: proxy.hostname, port: proxy.port, method: 'CONNECT', path: `${options.host}:${options.port}` })
      .on('connect', (_, socket) => done(null, tls.connect({ ...options, socket, servername: options.host })))
      .on('error', done)
      .end();
  }
}

async function look(client, answer) {
  answer.region = await client.config.region();
  answer.arn = (await client.send(new GetCallerIdentityCommand({}))).Arn;
}

(async () => {
  let client;
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const answer = {};
    try {
      if (line === 'new') client = new STSClient({ requestHandler: { httpsAgent: new Tunnel() } });
      await look(client, answer);
    } catch (e) {
      answer.error = e.message;
    }
    console.log(JSON.stringify(answer));
  }
})();
