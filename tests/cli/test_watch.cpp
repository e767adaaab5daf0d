// `sluice breakers watch` beside a server that is killed and comes back.
#include <gmock/gmock.h>
#include <poll.h>

#include <nlohmann/json.hpp>

#include "cli/canned_answers.hpp"
#include "cli/process.hpp"

namespace sluice::cli_test {
namespace {

using testing::HasSubstr;

std::string wait_for(const std::string& path, const std::string& text) {
  std::string all;
  for (int i = 0; i < 3'000 && all.find(text) == std::string::npos; ++i) {
    pollfd none{-1, 0, 0};
    ::poll(&none, 1, 10);
    all = read_file(path);
  }
  return all;
}

TEST(Watch, RES_41_breakers_are_watched_over_a_crash_of_the_server) {
  const testing_support::TempFolder folder;
  std::ofstream(folder.file("rules.toml")) << "[guard.\"codes\".breaker]\n";
  std::ofstream(folder.file("sluice.toml")) << "[guards]\nrules = \"rules.toml\"\n";
  const auto force = [](const Serving& at, const char* state) {
    return at.ask({"breakers", "force", "codes", state, "--reason", "a test"});
  };
  Serving first(folder.path(), {"--config", "sluice.toml"});
  const Ran forced = force(first, "forced_open");
  ASSERT_EQ(forced.status, 0) << forced.err;
  const std::string out = folder.file("watch.out"), err = folder.file("watch.err");
  const int to_out = open(out.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  const int to_err = open(err.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  const pid_t watch = spawn(folder.path(), {"breakers", "watch", "--interval-ms", "20"}, first.settings(), to_out, to_err);
  close(to_out);
  close(to_err);
  // What was before its first look is not news.
  for (int i = 0; i < 200 && read_file(out).empty(); ++i) ASSERT_EQ(force(first, i % 2 == 0 ? "closed" : "forced_open").status, 0);
  EXPECT_THAT(read_file(out), HasSubstr("codes"));
  first.crash();
  EXPECT_THAT(wait_for(err, "still watching"), HasSubstr("no answer from " + first.address() + "; still watching"));
  Serving second(folder.path(), {"--config", "sluice.toml", "--listen", first.address().substr(7)}, {{"SLUICE_TOKEN", first.token()}});
  ASSERT_FALSE(second.address().empty()) << read_file(folder.file("server.err"));
  second.use_token(first.token());
  EXPECT_THAT(wait_for(err, "answers again"), HasSubstr("answers again"));
  ASSERT_EQ(force(second, "disabled").status, 0);
  EXPECT_THAT(wait_for(out, "disabled"), HasSubstr("disabled")) << "a new server counts its changes from the start";
  kill(watch, SIGTERM);
  int status = 0;
  waitpid(watch, &status, 0);
  EXPECT_EQ(WTERMSIG(status), SIGTERM);
}

using Json = nlohmann::json;

// As a server says of one breaker that has changed `generation` times, the last one just now.
std::string counted(double for_ms, int generation) {
  const Json change{{"from", "closed"}, {"to", "open"}, {"reason", "failures"}, {"ago_ms", 0.0}, {"generation", generation}};
  const Json codes{{"name", "codes"},  {"app", "shop"}, {"passed", 5'000'000'000}, {"blocked", 3'000'000'000}, {"state", "open"},
                   {"failures", 0},    {"calls", 0},    {"rule", "codes"},         {"transitions", Json::array({change})}};
  return Json{{"counting_for_ms", for_ms}, {"protectors", Json::array({codes})}}.dump();
}

TEST(Watch, RES_41_a_server_that_was_started_again_between_two_looks_is_noticed) {
  const testing_support::TempFolder folder;
  CannedAnswers quick({counted(60'000, 7), counted(0.001, 1)});
  const Ran watched = run(folder.path(), {"breakers", "watch", "--count", "2", "--interval-ms", "10", "--json"},
                          {{"SLUICE_SERVER", quick.server()}, {"SLUICE_TOKEN", "t"}});
  EXPECT_EQ(watched.status, 0) << watched.err;
  EXPECT_THAT(watched.err, HasSubstr("was started again"));
  EXPECT_EQ(Json::parse(watched.out, nullptr, false)["generation"], 1) << watched.out;
  CannedAnswers same({counted(60'000, 7), counted(60'020, 8)});
  const Ran calm = run(folder.path(), {"breakers", "watch", "--count", "2", "--interval-ms", "10", "--json"},
                       {{"SLUICE_SERVER", same.server()}, {"SLUICE_TOKEN", "t"}});
  EXPECT_EQ(calm.err, "");
  EXPECT_EQ(Json::parse(calm.out, nullptr, false)["generation"], 8) << calm.out;
}

TEST(Watch, RES_41_an_order_that_a_restart_has_forgotten_is_told) {
  const testing_support::TempFolder folder;
  const Json forced{{"name", "codes"}, {"app", "shop"}, {"state", "forced_open"}, {"transitions", Json::array()}};
  CannedAnswers quick({Json{{"counting_for_ms", 60'000}, {"protectors", Json::array({forced})}}.dump(),
                       Json{{"counting_for_ms", 0.001}, {"protectors", Json::array()}}.dump()});
  const Ran watched = run(folder.path(), {"breakers", "watch", "--count", "2", "--interval-ms", "10", "--json"},
                          {{"SLUICE_SERVER", quick.server()}, {"SLUICE_TOKEN", "t"}});
  EXPECT_EQ(watched.status, 0) << watched.err;
  const Json line = Json::parse(watched.out, nullptr, false);
  EXPECT_EQ(line["name"], "codes") << watched.out;
  EXPECT_EQ(line["from"], "forced_open");
  EXPECT_EQ(line["to"], "closed");
  CannedAnswers same({Json{{"counting_for_ms", 60'000}, {"protectors", Json::array({forced})}}.dump(),
                      Json{{"counting_for_ms", 60'020}, {"protectors", Json::array({forced})}}.dump()});
  EXPECT_EQ(run(folder.path(), {"breakers", "watch", "--count", "2", "--interval-ms", "10"},
                {{"SLUICE_SERVER", same.server()}, {"SLUICE_TOKEN", "t"}}).out, "");
}

TEST(Watch, RES_41_an_order_for_an_app_that_has_not_called_names_those_that_have) {
  const testing_support::TempFolder folder;
  CannedAnswers one({R"({"called":false,"callers":["shop","bank"]})"});
  const Ran forced = run(folder.path(), {"breakers", "force", "codes", "forced_open", "--app", "shopp", "--reason", "x"},
                         {{"SLUICE_SERVER", one.server()}, {"SLUICE_TOKEN", "t"}});
  EXPECT_EQ(forced.status, 0) << forced.err;
  EXPECT_THAT(forced.out, HasSubstr("App shopp has not called it yet"));
  EXPECT_THAT(forced.out, HasSubstr("Called by: shop, bank."));
}

TEST(Watch, RES_41_counts_past_two_thousand_million_are_listed_as_they_are) {
  const testing_support::TempFolder folder;
  CannedAnswers large({counted(1, 1)});
  const Ran list = run(folder.path(), {"breakers", "list"}, {{"SLUICE_SERVER", large.server()}, {"SLUICE_TOKEN", "t"}});
  EXPECT_EQ(list.status, 0) << list.err;
  EXPECT_THAT(list.out, HasSubstr("5000000000"));
  EXPECT_THAT(list.out, HasSubstr("3000000000"));
  EXPECT_THAT(list.out, HasSubstr("shop"));
}

}  // namespace
}  // namespace sluice::cli_test
