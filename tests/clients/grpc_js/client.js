// grpc-js: metadata, one call, and a stream; the messages come from the .proto files.
const assert = require("node:assert");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [address, protos] = process.argv.slice(2);
const definition = loader.loadSync("inference/grpc_service.proto", { includeDirs: [protos], keepCase: true, longs: Number });
const { inference } = grpc.loadPackageDefinition(definition);
const client = new inference.GRPCInferenceService(address, grpc.credentials.createInsecure());

const call = (method, request) =>
  new Promise((resolve, reject) => client[method](request, (error, answer) => (error ? reject(error) : resolve(answer))));

const rows = new Float32Array([1, 2, 3, 4]);
const elements = Buffer.from(rows.buffer);
const request = (id, model = "sum_and_difference") => ({
  model_name: model,
  id,
  inputs: ["a", "b"].map((name) => ({ name, datatype: "FP32", shape: [1, 4] })),
  outputs: [{ name: "sum" }],
  raw_input_contents: [elements, elements],
});

const numbers = (content) => Array.from({ length: content.length / 4 }, (_, index) => content.readFloatLE(4 * index));

async function main() {
  assert.strictEqual((await call("ServerReady", {})).ready, true);
  assert.strictEqual((await call("ModelMetadata", { name: "sum_and_difference" })).inputs[0].datatype, "FP32");
  const answer = await call("ModelInfer", request("r-1"));
  assert.deepStrictEqual([answer.id, numbers(answer.raw_output_contents[0])], ["r-1", [2, 4, 6, 8]]);
  await assert.rejects(call("ModelInfer", request("r-2", "none")), { code: grpc.status.NOT_FOUND });

  const stream = client.ModelStreamInfer();
  for (let number = 0; number < 30; number++) stream.write(request(String(number), number % 10 ? "sum_and_difference" : "none"));
  stream.end();
  const told = { answers: 0, errors: 0 };
  for await (const { error_message, infer_response } of stream) {
    if (error_message) told.errors += 1;
    else if (numbers(infer_response.raw_output_contents[0])[3] === 8) told.answers += 1;
  }
  assert.deepStrictEqual(told, { answers: 27, errors: 3 });
  client.close();
  console.log("done");
}

main();
