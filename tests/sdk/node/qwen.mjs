// The server whose model's template knows tools, and a tool to call.
import { z } from "zod";

export const server = { baseURL: `${process.env.MILLRACE_TOOLS_URL}/v1`, apiKey: process.env.MILLRACE_TOOLS_KEY };
export const model = "qwen2.5-coder-0.5b-instruct-Q4_K_M";
export const ask = "What is the weather in Oslo right now? Use the tool.";
export const description = "Current weather in a city";
export const parameters = z.object({ city: z.string().describe("Name of a city") });
// A result that no model would make up.
export const celsius = -17;
