// A dialogue with its history.
import OpenAI from "openai";

const client = new OpenAI();
const messages = [{ role: "system", content: "You are a helpful assistant." }];
for (const content of ["What is the capital of France?", "And what is it famous for?"]) {
  messages.push({ role: "user", content });
  const answer = await client.chat.completions.create({
    model: "gpt-3.5-turbo-instruct", messages, max_completion_tokens: 80, temperature: 0,
  });
  messages.push(answer.choices[0].message);
  console.log(`> ${content}\n${messages.at(-1).content.trim()}`);
}
