// What `sluice send --stream --results` writes of each line, and that it can be watched and stopped.
#include <filesystem>
#include <sstream>

#include "cli/send_stream_fixture.hpp"

namespace sluice::cli_test {
namespace {

TEST_F(SendStream, STREAM_16_results_tell_what_became_of_each_line) {
  const Serving server(folder.path(), {"--grpc-listen", "127.0.0.1:0"});
  write("mixed.jsonl",
        R"({"name":"kv.add","payload":{"collection":"bulk","key":"a","delta":2}})" "\n\n"
        R"({"name":"kv.add","payload":{"collection":"bulk","key":"a","delta":-5,"floor":0}})" "\n"
        R"({"name":"no.such"})" "\n"
        R"({"name":"kv.get","payload":{"collection":"bulk","key":"a"}})" "\n");
  const Ran ran = send(server, {"mixed.jsonl", "--results", "became.jsonl"});
  EXPECT_EQ(ran.status, 1) << ran.err;
  std::istringstream text(read_file(folder.file("became.jsonl")));
  std::vector<json> lines;
  for (std::string one; std::getline(text, one);) lines.push_back(json::parse(one));
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0]["outcome"], "succeeded");
  EXPECT_EQ(lines[0]["line"], 1);
  EXPECT_EQ(lines[0]["reply"]["added"], 2);
  EXPECT_EQ(lines[1]["outcome"], "failed");
  EXPECT_EQ(lines[1]["line"], 3);
  EXPECT_FALSE(lines[1]["kind"].get<std::string>().empty());
  EXPECT_EQ(lines[2]["outcome"], "failed");
  EXPECT_THAT(lines[2]["detail"].get<std::string>(), HasSubstr("no.such"));
  EXPECT_EQ(lines[3]["outcome"], "succeeded") << "a command that keeps no replies";
  EXPECT_FALSE(lines[3].contains("reply"));
  const Ran nowhere = send(server, {"mixed.jsonl", "--results", "absent/became.jsonl"});
  EXPECT_EQ(nowhere.status, 2) << nowhere.err;
  for (const auto& left : std::filesystem::directory_iterator(folder.path()))
    EXPECT_NE(left.path().extension(), ".part") << left.path();
}

// A message's deadline that no disk keeps: what was told as unsettled commits a little later.
TEST_F(SendStream, STREAM_16_what_was_not_settled_and_is_by_now_is_told_as_what_it_became) {
  constexpr int kRows = 1000;  // more than the mark tells of them
  write_rows(kRows);
  const Serving server(folder.path(), {"--grpc-listen", "127.0.0.1:0"}, {{"SLUICE_STREAMS_MESSAGE_DEADLINE_MS", "1"}});
  (void)send(server, {"rows.jsonl", "kv.add", "--any-order"});
  const Ran again = send(server, {"rows.jsonl", "kv.add", "--any-order", "--json", "--results", "became.jsonl"});
  EXPECT_EQ(again.status, 0) << again.out << again.err;
  const json told = json::parse(again.out);
  EXPECT_EQ(told["unsettled"], 0);
  EXPECT_EQ(told["succeeded"], kRows);
  std::istringstream text(read_file(folder.file("became.jsonl")));
  int lines = 0;
  for (std::string one; std::getline(text, one); ++lines) ASSERT_EQ(json::parse(one)["outcome"], "succeeded") << one;
  EXPECT_EQ(lines, kRows);
}

TEST_F(SendStream, STREAM_16_ctrl_c_while_results_are_asked_for_stops_and_leaves_nothing_behind) {
  constexpr int kRows = 20'000;
  write_rows(kRows);
  const Serving server(folder.path(), {"--grpc-listen", "127.0.0.1:0"});
  Arguments command{"send", "kv.add", "--stream", "rows.jsonl", "--order-by", "key", "--json", "--grpc", server.grpc()};
  ASSERT_EQ(server.ask(command).status, 0);
  command.insert(command.end(), {"--results", "became.jsonl"});
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  const pid_t client = spawn(folder.path(), command, server.settings(), null, ends[1]);
  close(ends[1]);
  close(null);
  std::string said;
  char piece[512];
  bool stopped = false;
  for (ssize_t got; (got = read(ends[0], piece, sizeof piece)) > 0;) {
    said.append(piece, static_cast<std::size_t>(got));
    if (!stopped && said.find(R"({"progress":"results","done":0,"messages":20000)") != std::string::npos) stopped = kill(client, SIGINT) == 0;
  }
  close(ends[0]);
  int status = 0;
  waitpid(client, &status, 0);
  ASSERT_TRUE(WIFEXITED(status)) << said;
  EXPECT_EQ(WEXITSTATUS(status), 4) << said;
  EXPECT_THAT(said, HasSubstr("the same command asks for the replies again"));
  for (const auto& left : std::filesystem::directory_iterator(folder.path()))
    EXPECT_EQ(left.path().filename().string().find("became"), std::string::npos) << left.path();
}

}  // namespace
}  // namespace sluice::cli_test
