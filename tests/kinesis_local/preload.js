// Loaded before kinesis-local (node --require), which listens on every address and has no setting for it. The pipe to our
// standard input closes when the process that started us is gone, however it went.
'use strict';

const net = require('node:net');

const HOST = '127.0.0.1';
const listen = net.Server.prototype.listen;

net.Server.prototype.listen = function (...args) {
  const callback = args.findLast((argument) => typeof argument === 'function');
  const rest = callback ? [callback] : [];
  if (args[0] !== null && typeof args[0] === 'object' && 'port' in args[0]) {
    return listen.call(this, { ...args[0], host: HOST }, ...rest);
  }
  if (typeof args[0] === 'number') {
    return listen.call(this, { port: args[0], host: HOST }, ...rest);
  }
  return listen.apply(this, args);
};

process.stdin.on('end', () => process.exit(0));
process.stdin.resume();
