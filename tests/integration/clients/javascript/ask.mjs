// The openai package, unchanged: asks what its arguments name, and prints what it got as JSON.
import OpenAI from "openai";

const [baseURL, apiKey, what, text] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const body = { model: "default", messages: [{ role: "user", content: text }] };

const ways = {
  async chat() {
    const answer = await client.chat.completions.create(body);
    return { text: answer.choices[0].message.content, usage: answer.usage };
  },
  async stream() {
    const pieces = [];
    for await (const chunk of await client.chat.completions.create({ ...body, stream: true })) {
      pieces.push(chunk.choices[0]?.delta?.content ?? "");
    }
    return { pieces: pieces.filter((piece) => piece) };
  },
  async tool() {
    const parameters = {
      type: "object",
      properties: { city: { type: "string" }, days: { type: "integer" } },
      required: ["city", "days"],
    };
    const tools = [{ type: "function", function: { name: "get_weather", parameters } }];
    const answer = await client.chat.completions.create({ ...body, tools });
    const [call] = answer.choices[0].message.tool_calls;
    return { name: call.function.name, arguments: JSON.parse(call.function.arguments) };
  },
  async structured() {
    const schema = {
      type: "object",
      properties: { city: { enum: ["Paris", "Madrid"] }, country: { enum: ["France", "Spain"] } },
      required: ["city", "country"],
      additionalProperties: false,
    };
    const response_format = { type: "json_schema", json_schema: { name: "place", strict: true, schema } };
    const answer = await client.chat.completions.parse({
      ...body,
      response_format,
      temperature: 0,
      max_tokens: 80,
    });
    return JSON.parse(answer.choices[0].message.content);
  },
  async responses() {
    const pieces = [];
    for await (const event of await client.responses.create({ model: "default", input: text, stream: true })) {
      if (event.type === "response.output_text.delta") pieces.push(event.delta);
    }
    return { pieces };
  },
  async embeddings() {
    const answer = await client.embeddings.create({ model: "default", input: [text, text] });
    return { sizes: answer.data.map((each) => each.embedding.length) };
  },
  // Leaves a stream at its first text, and stays until it is told to end.
  async leave() {
    const stream = await client.chat.completions.create({ ...body, stream: true });
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta?.content) break;
    }
    console.log(JSON.stringify({ aborted: stream.controller.signal.aborted }));
    await new Promise((resolve) => process.stdin.once("end", resolve).resume());
    return undefined;
  },
};

try {
  const found = await ways[what]();
  if (found) console.log(JSON.stringify(found));
} catch (error) {
  if (!(error instanceof OpenAI.APIError)) throw error;
  const { status, code } = error;
  console.log(JSON.stringify({ type: error.constructor.name, status, code }));
}
