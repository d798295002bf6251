// A translation.
import OpenAI from "openai";

const client = new OpenAI();
const prompt = "Translate this into French: Good morning, how are you?";
const answer = await client.completions.create({ model: "text-davinci-002", prompt, max_tokens: 60, temperature: 0 });
console.log(answer.choices[0].text.trim());
