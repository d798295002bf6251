// A story, printed while it comes.
import OpenAI from "openai";

const client = new OpenAI(); // OPENAI_BASE_URL and OPENAI_API_KEY say where the server is, and who asks.
const stream = await client.completions.create({
  model: "text-davinci-002", prompt: "Tell me a story about a robot.", max_tokens: 150, temperature: 0.5, stream: true,
});
for await (const chunk of stream) process.stdout.write(chunk.choices[0].text);
console.log();
