// A summary.
import OpenAI from "openai";

const client = new OpenAI();
const text =
  "The mill stands where the river is narrow. In spring the water turns its wheel day and night; in summer the miller waits " +
  "for rain. When the town built a dam upstream, the wheel stood still, and the miller's daughter put a turbine in its place.";
const answer = await client.completions.create({
  model: "text-davinci-002", prompt: `Summarise in one sentence:\n\n${text}`, max_tokens: 80, temperature: 0,
});
console.log(answer.choices[0].text.trim());
